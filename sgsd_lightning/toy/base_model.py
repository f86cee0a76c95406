"""The toy world's base model: a tiny Qwen3 that has read traces of every convention, trained from a seed and cached."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from sgsd_lightning.toy.corpus import Corpus, CorpusSettings, TokenBatch
from sgsd_lightning.toy.muon import Muon
from sgsd_lightning.toy.tokenizer import toy_tokenizer

CACHE_VARIABLE = "SGSD_TOY_CACHE"
_COMPLETE_MARK = "recipe.json"


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


def build_base_model(seed: int = 0, cache_dir: Path | None = None, settings: BaseModelSettings | None = None) -> Path:
    """The folder of the base model and its tokenizer, trained on the first call and found again afterwards.

    Args:
        seed: Determines the weights, given one machine's arithmetic.
        cache_dir: Where to keep models; the default is ``$SGSD_TOY_CACHE``, else ``~/.cache/sgsd_lightning/toy``.
        settings: Another recipe than the demo's.

    Returns:
        A folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load.
    """
    settings = settings or BaseModelSettings()
    tokenizer = toy_tokenizer()
    recipe = _recipe(seed, settings, tokenizer)
    parent = cache_dir or _default_cache_dir()
    folder = parent / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if (folder / _COMPLETE_MARK).is_file():
        return folder
    model = train_base_model(seed, settings, tokenizer)
    parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=parent))
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / _COMPLETE_MARK).write_text(recipe, encoding="utf-8")
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def train_base_model(seed: int, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Train from scratch; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_model_config(settings, tokenizer))
    model.train()
    corpus = Corpus(settings.corpus, tokenizer, random.Random(seed))
    optimizers = _optimizers(model, settings)
    num_steps = settings.num_drill_steps + settings.num_chat_steps
    with tqdm(total=num_steps, desc="toy base model", unit="step") as progress:
        for step in range(num_steps):
            _set_learning_rates(optimizers, _learning_rate_factor(step, num_steps))
            batch = corpus.batch(settings.batch_size, is_drill=step < settings.num_drill_steps)
            loss = completion_loss(model, batch)
            model.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            progress.update()
            if step % 20 == 0:
                progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def completion_loss(model: Qwen3ForCausalLM, batch: TokenBatch) -> torch.Tensor:
    """Mean cross entropy of the completions' tokens, in nats."""
    # right padding under a causal mask needs no attention mask: no real token sees a padded one
    hidden = model.model(input_ids=batch.input_ids).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[batch.is_completion[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, batch.input_ids[:, 1:][batch.is_completion[:, 1:]])


def _model_config(settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
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


def _optimizers(model: Qwen3ForCausalLM, settings: BaseModelSettings) -> tuple[torch.optim.Optimizer, ...]:
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    return (
        Muon(matrices, lr=settings.matrix_learning_rate),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _set_learning_rates(optimizers: tuple[torch.optim.Optimizer, ...], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _learning_rate_factor(step: int, num_steps: int) -> float:
    """Linear warm-up over 30 steps, constant, then linear to zero over the last half."""
    remaining = 1 - step / num_steps
    return min(1.0, (step + 1) / 30, 2 * remaining)


def _default_cache_dir() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "sgsd_lightning" / "toy"


def _recipe(seed: int, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> str:
    corpus = Corpus(settings.corpus, tokenizer, random.Random(seed))
    content = {
        "seed": seed,
        "settings": dataclasses.asdict(settings),
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "corpus_sample": hashlib.sha256(repr(corpus.examples(32)).encode()).hexdigest(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return json.dumps(content, indent=2, sort_keys=True)


def _publish(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError:
        # another process finished the same recipe first: its folder serves as well
        if not (folder / _COMPLETE_MARK).is_file():
            raise
