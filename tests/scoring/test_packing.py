"""Packing: what goes into one forward pass, and where its completion tokens are predicted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.scoring.packing import RowLayout, forward_passes, pack
from sgsd_lightning.scoring.segments import Segment, Span
from sgsd_lightning.types import TokenSequence

LAYOUTS: tuple[RowLayout, ...] = ("packed", "shared", "padded")
SEQUENCES = [
    TokenSequence.causal((10, 11, 12), (13, 14)),
    TokenSequence.causal((20,), (21, 22, 23)),
    TokenSequence.causal((30, 31), (32,)),
]
ONE_PROMPT = [
    TokenSequence.causal((10, 11), (12, 13, 14)),
    TokenSequence.causal((20,), (21, 22)),
    TokenSequence.causal((10, 11), (15,)),
    TokenSequence.causal((10, 11), (16, 17)),
]


def _sequence(length: int) -> TokenSequence:
    return TokenSequence.causal(tuple(range(length)), ())


@pytest.mark.parametrize("layout", ["packed", "shared"])
def test_a_packed_row_holds_every_sequence_without_its_last_token(layout: RowLayout) -> None:
    batch = pack(SEQUENCES, layout)
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 20, 21, 22, 30, 31]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1]]
    assert batch.segments is not None
    assert batch.segments.query_starts.tolist() == batch.segments.key_starts.tolist() == [0, 4, 7, 9]
    assert batch.segments.query_starts.dtype == torch.int32
    assert batch.segments.longest_query == batch.segments.longest_key == 4
    assert batch.segments.key_index is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_targets_are_the_tokens_after_the_positions_that_predict_them(layout: RowLayout) -> None:
    batch = pack(SEQUENCES, layout)
    assert batch.targets.tolist() == [13, 14, 21, 22, 23, 32]
    assert batch.input_ids.flatten()[batch.predicted_from].tolist() == [12, 13, 20, 21, 22, 31]


def test_padded_rows_are_filled_up_on_the_right() -> None:
    batch = pack(SEQUENCES, "padded")
    assert batch.input_ids.tolist() == [[10, 11, 12, 13], [20, 21, 22, 0], [30, 31, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3]] * 3
    assert batch.segments is None


def test_a_shared_prompt_is_in_the_row_once() -> None:
    batch = pack(ONE_PROMPT, "shared")
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 16, 20, 21]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1]]
    assert batch.targets.tolist() == [12, 13, 14, 21, 22, 15, 16, 17]
    assert batch.predicted_from.tolist() == [1, 2, 3, 5, 6, 1, 1, 4]
    assert batch.segments is not None
    assert batch.segments.segments == (
        Segment(start=0, length=4),
        Segment(start=4, length=1, prefix=(Span(0, 2),)),
        Segment(start=5, length=2),
    )
    assert batch.segments.query_starts.tolist() == [0, 4, 5, 7]
    assert batch.segments.key_starts.tolist() == [0, 4, 7, 9]
    assert batch.segments.key_index is not None
    assert batch.segments.key_index.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 6]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt to score under has no tokens"):
        pack([TokenSequence.causal((), (1,))])


def test_packing_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        pack([])


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2), st.integers(0, 20)), max_size=30),
    st.integers(1, 64),
    st.sampled_from(LAYOUTS),
)
def test_passes_hold_every_sequence_once_within_the_budget(
    sizes: list[tuple[int, int, int]], budget: int, layout: RowLayout
) -> None:
    sequences = [TokenSequence.causal((kind,) * p, (9,) * c) for p, kind, c in sizes]
    passes = forward_passes(sequences, budget, layout)
    assert sorted(index for indices in passes for index in indices) == list(range(len(sequences)))
    for indices in passes:
        num_tokens = pack([sequences[index] for index in indices], layout).input_ids.numel()
        assert len(indices) == 1 or num_tokens <= budget


def test_sequences_of_similar_length_share_a_padded_pass() -> None:
    sequences = [_sequence(length) for length in (2, 9, 2, 9, 2)]
    assert forward_passes(sequences, 18, "padded") == [[1, 3], [0, 2, 4]]


def test_sequences_that_share_a_prompt_share_a_pass() -> None:
    sequences = [TokenSequence.causal((index % 2,) * 10, (5,) * (6 + index % 3)) for index in range(6)]
    # 10 for the prompt, 5 to 7 for each completion
    assert forward_passes(sequences, 28, "shared") == [[0, 2, 4], [1, 3, 5]]
    assert forward_passes(sequences, 28, "packed") != [[0, 2, 4], [1, 3, 5]]
    assert [len(indices) for indices in forward_passes(sequences, 23, "shared")] == [2, 2, 1, 1]


def test_a_budget_below_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens_per_forward must be at least 1"):
        forward_passes([_sequence(1)], 0)
