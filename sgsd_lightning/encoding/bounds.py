"""The most tokens that a text can have, of its length alone, for tokenizers whose making says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import models
from transformers import PreTrainedTokenizerBase

_EXPANSION = {"NFC": 3}
"""How many times as long a text's UTF-8 becomes at most (UAX 15)."""


def tokens_per_byte(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """No text has more tokens than this times its UTF-8 bytes; None where the tokenizer's parts promise no such bound.

    Certain for byte-level BPE that adds nothing to a text: every token stands for at least one byte.
    """
    if not tokenizer.is_fast:
        return None
    backend = tokenizer.backend_tokenizer
    normalizer = _parts(backend.normalizer)
    expansion = 1 if normalizer is None else _EXPANSION.get(normalizer["type"])
    is_bpe = isinstance(backend.model, models.BPE) and not backend.model.byte_fallback
    return expansion if is_bpe and _is_byte_level(_parts(backend.pre_tokenizer)) else None


def _parts(part: Any) -> Any:
    """How a normalizer or a pre-tokenizer is made up, without the vocabulary around it."""
    return None if part is None else json.loads(part.__getstate__())


def _is_byte_level(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    """Whether texts are cut and then become bytes, with nothing put before or between."""
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": [*cuts, last]}:
            return all(cut["type"] in ("Split", "Digits") for cut in cuts) and _is_byte_level(last)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return True
    return False
