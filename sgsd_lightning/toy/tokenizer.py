"""The toy world's tokenizer: one token per word of its bank and prompts, per digit and per spaced operator."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerFast

from sgsd_lightning.policy.byte_tokenizer import byte_level_tokenizer
from sgsd_lightning.toy.bank import load_toy_bank
from sgsd_lightning.toy.problems import OPERATORS
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE

# an operator keeps its spaces, so that a digit is the same token wherever it stands
_PATTERN = r"\n\n|\n|\\boxed\{| [+*=\-] | ?[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]|\s"
_FIELD = re.compile(r"\{\w+\}")
_TEXT_FIELDS = ("title", "principle", "when_to_apply", "description", "why_it_happens", "how_to_avoid")


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """A few hundred tokens; words that it does not know become bytes, so every text encodes and decodes exactly.

    The same ids on every machine: the vocabulary is listed from the bank and the prompts, not trained.
    """
    words = ["\n\n", "\\boxed{", "user", "assistant", "system", " = ", *(f" {o} " for o in OPERATORS)]
    for text in _texts():
        words += [match.group() for match in re.finditer(r" ?[A-Za-z]+", text)]
    return byte_level_tokenizer(words=tuple(dict.fromkeys(words)), pattern=_PATTERN)


def _texts() -> list[str]:
    bank = load_toy_bank()
    texts = [_FIELD.sub("", template) for template in (STUDENT_TEMPLATE, TEACHER_TEMPLATE, PAIR_TEMPLATE)]
    for item in (*bank["general_skills"], *bank["common_mistakes"]):
        # a field's first word also stands after a space, where the pair template puts one
        texts += [spelling for field in _TEXT_FIELDS if (text := item.get(field)) for spelling in (text, f" {text}")]
    return texts
