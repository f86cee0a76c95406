"""Says once where texts from outside hold control tokens of the tokenizer, which the encoder keeps text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.encoding import reserved_strings
from sgsd_lightning.training.usable_problems import shorten_list
from sgsd_lightning.types import Problem

log = logging.getLogger(__name__)


def describe_control_tokens(what: str, texts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """One sentence with the number and the first ids of the texts that hold some; None where none does.

    Args:
        what: What the texts are: ``train problems``.
        texts: By id.
        tokenizer: Whose added and special tokens are looked for.
    """
    reserved = reserved_strings(tokenizer)
    held = {name: found for name, text in texts.items() if (found := reserved.found_in(text))}
    if not held:
        return None
    tokens = ", ".join(repr(token) for token in dict.fromkeys(token for found in held.values() for token in found))
    return (
        f"{len(held)} of {len(texts)} {what} hold control tokens of the tokenizer ({tokens}), which are encoded as "
        f"text: {shorten_list(list(held))}"
    )


def warn_of_control_tokens(what: str, texts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Log what :func:`describe_control_tokens` says, if anything."""
    warning = describe_control_tokens(what, texts, tokenizer)
    if warning is not None:
        log.warning("%s", warning)


def list_texts(problems: Sequence[Problem]) -> dict[str, str]:
    """All that a prompt may show of each problem, by its id."""
    return {
        problem.problem_id: "\n".join([problem.text, problem.answer, problem.solution or "", *problem.shards])
        for problem in problems
    }
