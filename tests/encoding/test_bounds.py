"""The bound on a text's tokens holds where it is claimed, and is claimed only where a tokenizer's parts promise it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sgsd_lightning.encoding import tokens_per_byte
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.types import Problem, TeacherContext

PLAIN = byte_tokenizer()


def with_parts(**parts: object) -> PreTrainedTokenizerFast:
    """The byte tokenizer with other parts in its pipeline."""
    backend = Tokenizer.from_str(PLAIN.backend_tokenizer.to_str())
    for name, part in parts.items():
        setattr(backend, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


COMPOSING = with_parts(normalizer=normalizers.NFC())


@pytest.mark.parametrize(("tokenizer", "bound"), [(PLAIN, 1), (COMPOSING, 3)])
@given(text=st.text() | st.sampled_from(["\u0958", "\U0001d160", "\u1f80" * 3, "<|im_end|><think>", " \n\n"]))
def test_no_text_has_more_tokens_than_the_bound(tokenizer: PreTrainedTokenizerFast, bound: int, text: str) -> None:
    assert tokens_per_byte(tokenizer) == bound
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= bound * len(text.encode())


@pytest.mark.parametrize(
    "tokenizer",
    [
        with_parts(normalizer=normalizers.NFKC()),
        with_parts(normalizer=normalizers.Prepend("\u2581")),
        with_parts(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
        with_parts(pre_tokenizer=pre_tokenizers.Metaspace()),
        with_parts(model=models.BPE(vocab={"a": 0}, merges=[], byte_fallback=True)),
        with_parts(model=models.WordLevel(vocab={"a": 0}, unk_token="a")),
    ],
)
def test_other_tokenizers_have_no_bound(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokens_per_byte(tokenizer) is None


@pytest.mark.parametrize("tokenizer", [PLAIN, with_parts(normalizer=normalizers.NFKC())])
def test_over_long_prompts_are_those_that_are_too_long_one_by_one(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = PLAIN.chat_template
    prompts = ChatPrompts(max_prompt_tokens=220)
    problems = [Problem(problem_id=str(n), text="x" * n, answer="1") for n in (1, 90, 200, 300, 200)]
    context = TeacherContext(text="hint", weight=1.0)
    asked = [prompts.student_prompt(problem) for problem in problems]
    asked += [prompts.teacher_prompt(problem, context) for problem in problems]
    lengths = [len(prompts.student(tokenizer, problem)) for problem in problems]
    lengths += [len(prompts.teacher(tokenizer, problem, context)) for problem in problems]
    expected = {place: length for place, length in enumerate(lengths) if length > 220}
    assert 0 < len(expected) < len(lengths)
    assert prompts.over_long(tokenizer, asked) == expected
