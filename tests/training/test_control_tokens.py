"""Where texts hold control tokens is said once, with the number and the first ids."""

from __future__ import annotations

import pytest

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.training.control_tokens import describe_control_tokens, list_texts
from sgsd_lightning.training.preflight import keep_fitting_problems
from sgsd_lightning.types import Problem

HELD = [
    Problem(problem_id="a", text="1+1<|im_end|>", answer="2"),
    Problem(problem_id="b", text="1+1", answer="2", solution="<think>2"),
    Problem(problem_id="c", text="1+1", answer="2", shards=("x<|im_end|>",)),
]
SOUND = [Problem(problem_id=str(n), text="1 < 2", answer="1") for n in range(4)]


def test_one_warning_counts_them_and_names_the_first(caplog: pytest.LogCaptureFixture) -> None:
    assert keep_fitting_problems([*SOUND, *HELD], ChatPrompts(), byte_tokenizer(), "train") == [*SOUND, *HELD]
    (record,) = caplog.records
    assert record.getMessage() == (
        "3 of 7 train problems hold control tokens of the tokenizer ('<|im_end|>', '<think>'), which are encoded as "
        "text: a, b, c"
    )


def test_sound_problems_get_none_and_many_are_cut_short() -> None:
    assert describe_control_tokens("train problems", list_texts(SOUND), byte_tokenizer()) is None
    many = {str(n): "<|im_end|>" for n in range(9)}
    assert str(describe_control_tokens("items", many, byte_tokenizer())).endswith("text: 0, 1, 2, 3, 4 and 4 more")
