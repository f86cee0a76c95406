"""Packing: what goes into one forward pass, and where its completion tokens are predicted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.policy.packing import TokenSequence, microbatches, pack

SEQUENCES = [
    TokenSequence(prompt_ids=(10, 11, 12), completion_ids=(13, 14)),
    TokenSequence(prompt_ids=(20,), completion_ids=(21, 22, 23)),
    TokenSequence(prompt_ids=(30, 31), completion_ids=(32,)),
]


def test_a_packed_row_holds_every_sequence_without_its_last_token() -> None:
    batch = pack(SEQUENCES)
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 20, 21, 22, 30, 31]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1]]
    assert batch.segment_starts is not None
    assert batch.segment_starts.tolist() == [0, 4, 7, 9]
    assert batch.segment_starts.dtype == torch.int32
    assert batch.longest == 4


@pytest.mark.parametrize("is_padded", [False, True])
def test_targets_are_the_tokens_after_the_positions_that_predict_them(is_padded: bool) -> None:
    batch = pack(SEQUENCES, is_padded=is_padded)
    assert batch.targets.tolist() == [13, 14, 21, 22, 23, 32]
    assert batch.input_ids.flatten()[batch.predicted_from].tolist() == [12, 13, 20, 21, 22, 31]


def test_padded_rows_are_filled_up_on_the_right() -> None:
    batch = pack(SEQUENCES, is_padded=True)
    assert batch.input_ids.tolist() == [[10, 11, 12, 13], [20, 21, 22, 0], [30, 31, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3]] * 3
    assert batch.segment_starts is None
    assert batch.attention_arguments() == {}


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt to score under has no tokens"):
        pack([TokenSequence(prompt_ids=(), completion_ids=(1,))])


def test_packing_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        pack([])


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 64), st.booleans())
def test_microbatches_hold_every_sequence_once_within_the_budget(
    lengths: list[int], budget: int, is_padded: bool
) -> None:
    passes = microbatches(lengths, budget, is_padded=is_padded)
    assert sorted(index for indices in passes for index in indices) == list(range(len(lengths)))
    for indices in passes:
        chosen = [lengths[index] for index in indices]
        cost = len(chosen) * max(chosen) if is_padded else sum(chosen)
        assert len(indices) == 1 or cost <= budget


def test_sequences_of_similar_length_share_a_padded_pass() -> None:
    assert microbatches([2, 9, 2, 9, 2], 18, is_padded=True) == [[1, 3], [0, 2, 4]]


def test_a_budget_below_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens_per_forward must be at least 1"):
        microbatches([1], 0)
