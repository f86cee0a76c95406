"""What decides the toy base model's weights: sizes, steps, corpus, tokenizer and seed, and a digest of them all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast, Qwen3Config

from sgsd_lightning.toy.corpus import Corpus, CorpusSettings


@dataclass(frozen=True, slots=True)
class BaseModelSettings:
    """Everything beside the seed that determines the base model's weights."""

    num_drill_steps: int = 450
    """Steps on bare expressions, which teach arithmetic."""
    num_chat_steps: int = 300
    """Steps on chat prompts, plain and guided, which teach how to read them."""
    batch_size: int = 32
    matrix_learning_rate: float = 0.02
    """Of Muon, for the layers' matrices."""
    learning_rate: float = 5e-3
    """Of AdamW, for embeddings and gains."""
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    head_dim: int = 16
    intermediate_size: int = 192
    corpus: CorpusSettings = dataclasses.field(default_factory=CorpusSettings)


READS_SOLUTIONS = BaseModelSettings(num_chat_steps=400, corpus=CorpusSettings(guided_frac=0.4, solution_frac=0.25))
"""As many steps on plain and guided prompts as the demo's base model, and more on prompts with solutions."""


def model_config(settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The architecture of those sizes over the tokenizer's vocabulary."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        head_dim=settings.head_dim,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def recipe_digest(seed: int, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 in hexadecimal, the same on every machine and under every release of the libraries.

    Problems, bank, prompts and chat template are known by the text that the model would read first.
    """
    corpus = Corpus(settings.corpus, tokenizer, random.Random(seed))
    texts = [text for _ in range(32) for pair in corpus.examples(8) for text in pair]
    texts += [text for pair in corpus.examples(32, is_drill=True) for text in pair]
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    content = {
        "seed": seed,
        "settings": dataclasses.asdict(settings),
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "texts": texts,
        "token_ids": [encoding.ids for encoding in encodings],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
