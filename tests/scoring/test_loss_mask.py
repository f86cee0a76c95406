"""The loss mask: what is dropped, and that the sampled end of sequence is a choice."""

from __future__ import annotations

import pytest

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.scoring import LossMaskRule
from sgsd_lightning.types import FinishReason
from tests.support.tiny import tiny_completion

TOKENIZER = byte_tokenizer()


def _mask(text: str, *, train_eos: bool = True, finish_reason: FinishReason = FinishReason.TRUNCATED) -> list[bool]:
    rule = LossMaskRule(TOKENIZER, train_eos=train_eos)
    return rule(tiny_completion(TOKENIZER.encode(text, add_special_tokens=False), finish_reason)).tolist()


def test_think_tags_newlines_and_special_tokens_are_dropped() -> None:
    mask = _mask("<think>\na b\n</think>\n\nc<|im_start|>")
    assert mask == [False, False, True, True, True, False, False, False, False, True, False]


@pytest.mark.parametrize("train_eos", [True, False])
def test_the_sampled_end_of_sequence_counts_if_it_is_to_be_trained(train_eos: bool) -> None:
    mask = _mask("ab<|im_end|>", train_eos=train_eos, finish_reason=FinishReason.STOPPED)
    assert mask == [True, True, train_eos]


def test_whatever_token_ended_the_completion_counts_as_its_end() -> None:
    assert _mask("a<|endoftext|>", finish_reason=FinishReason.STOPPED) == [True, True]


def test_a_special_token_that_did_not_end_the_completion_is_dropped() -> None:
    assert _mask("a<|im_end|>b", finish_reason=FinishReason.STOPPED) == [True, False, True]
    assert _mask("a<|im_end|>", finish_reason=FinishReason.TRUNCATED) == [True, False]


def test_ids_beyond_the_tokenizer_count() -> None:
    rule = LossMaskRule(TOKENIZER, train_eos=False)
    assert rule(tiny_completion([len(TOKENIZER), 10_000], FinishReason.TRUNCATED)).tolist() == [True, True]


def test_an_empty_completion_has_an_empty_mask() -> None:
    assert _mask("", finish_reason=FinishReason.STOPPED) == []


def test_tokens_of_white_space_are_dropped_only_with_a_line_break() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["\n\n", " \n", "   ", "a\n"])
    rule = LossMaskRule(tokenizer, train_eos=True)
    ids = tokenizer.convert_tokens_to_ids(["\n\n", " \n", "   ", "a\n"])
    assert rule(tiny_completion(ids, FinishReason.TRUNCATED)).tolist() == [False, False, True, True]


def test_special_tokens_think_tags_and_line_breaks_are_all_that_is_dropped() -> None:
    ids = range(len(TOKENIZER))
    mask = LossMaskRule(TOKENIZER, train_eos=True)(tiny_completion(ids, FinishReason.TRUNCATED)).tolist()
    dropped = [TOKENIZER.convert_ids_to_tokens(index) for index in ids if not mask[index]]
    assert {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"} <= set(dropped)
    others = [token for token in dropped if not token.startswith("<")]
    assert [TOKENIZER.convert_tokens_to_string([token]) for token in others] == ["\n"]
    assert len(dropped) == 6
