"""How long a sequence may become before a model reads it otherwise than it reads a shorter one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedConfig

_SWITCHING = ("longrope", "su")
"""Rotary frequencies with two sets of factors: the names of Phi-3 and its successors."""


class PositionLimit(NamedTuple):
    """The most tokens of a sequence."""

    num: int
    what: str
    """The limit in words, for messages."""

    def check(self, name: str, prompt_tokens: int, max_new_tokens: int) -> None:
        """See that a completion fits behind a prompt.

        Raises:
            ValueError: if it may not.
        """
        if prompt_tokens + max_new_tokens > self.num:
            raise ValueError(
                f"{name} ({prompt_tokens} tokens) and sampling.max_new_tokens = {max_new_tokens} exceed {self.what}; "
                "lower max_new_tokens or prompts.max_prompt_tokens"
            )


def position_limit(config: PreTrainedConfig) -> PositionLimit | None:
    """The lower of a model's number of positions and :func:`rotary_limit`; None for a model without either."""
    num = getattr(config.get_text_config(), "max_position_embeddings", None)
    rotary = rotary_limit(config)
    if rotary is not None and (not num or rotary.num <= num):
        return rotary
    return PositionLimit(num, f"the model's {num} positions") if num and num > 0 else None


def rotary_limit(config: PreTrainedConfig) -> PositionLimit | None:
    """Up to where the rotary frequencies are those of any shorter sequence; None where they always are.

    Beyond it ``longrope`` and ``dynamic`` choose frequencies for all tokens of a forward pass by its longest sequence:
    a score would depend on its neighbours in a batch, and a rollout's first tokens would be scored under other
    frequencies than they were sampled under.
    """
    text = config.get_text_config()
    limits = [
        PositionLimit(num, f"the {num} positions ({field}) up to which its {kind} position embeddings do not change")
        for kind, settings in _rotary_settings(text)
        for field in ["original_max_position_embeddings" if kind in _SWITCHING else "max_position_embeddings"]
        if kind in _SWITCHING or "dynamic" in kind
        if (num := settings.get(field) or getattr(text, field, None))
    ]
    return min(limits, default=None)


def _rotary_settings(config: PreTrainedConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind and settings, of each kind of layer where they differ."""
    for name in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, name, None)
        if isinstance(settings, Mapping):
            for part in (settings, *settings.values()):
                if isinstance(part, Mapping) and (kind := part.get("rope_type", part.get("type"))):
                    yield str(kind), part
