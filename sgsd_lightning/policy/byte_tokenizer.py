"""Tokenizers made in code: given whole words where they are known, single bytes everywhere else; no download."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

CHAT_SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)
"""Skipped by ``decode(skip_special_tokens=True)``."""
THINK_TOKENS = (THINK_OPEN, THINK_CLOSE)
"""Whole tokens, but part of the text, as in Qwen3."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('role must be system, user or assistant; got ' ~ message.role) -}}"
    "{%- endif -%}"
    "{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{- '<|im_start|>assistant\\n' -}}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}"
    "{%- endif -%}"
    "{%- endif -%}"
)
"""ChatML with think tags, as Qwen3 renders it."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a UTF-8 byte, the chat markers and the think tags: any text, for any model size.

    End of sequence is ``<|im_end|>``, padding is ``<|endoftext|>`` and there is no beginning-of-sequence token.
    """
    return byte_level_tokenizer(words=(), pattern=r"[\s\S]")


def byte_level_tokenizer(words: Sequence[str], pattern: str) -> PreTrainedTokenizerFast:
    """A fast tokenizer that encodes any text and decodes it back exactly.

    Ids 0 to 255 are bytes (in the order of the byte-level alphabet), then come ``words``, then the chat markers and the
    think tags.

    Args:
        words: Texts that are one token each where ``pattern`` isolates them.
        pattern: Regular expression whose matches are looked up as words; other text becomes bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys([*alphabet, *map(_byte_level_spelling, words)])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    # ignore_merges looks a whole word up before splitting it: a word list with byte fallback and no merges to train
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CHAT_SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in THINK_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _byte_level_spelling(text: str) -> str:
    pretokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in pretokenizer.pre_tokenize_str(text))
