"""Sequences whose tokens all see one another, against plain bidirectional attention on each alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from sgsd_lightning.policy import LiveTeacher
from sgsd_lightning.scoring import Scorer, attention
from sgsd_lightning.scoring.attention import segment_arguments
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import RowLayout, forward_passes, pack
from sgsd_lightning.scoring.segments import Segment, Segments, Span
from sgsd_lightning.types import ScoreRequest, ScoreRow, TokenSequence

MakeModel = Callable[..., PreTrainedModel]
MakeIds = Callable[[int, int], tuple[int, ...]]

# tokens, and the positions that something is predicted from: of one token, of equal shape, out of order, of none
SHAPES = [(1, (0,)), (9, (0, 3, 8)), (6, (5, 2)), (9, (1, 2)), (4, ()), (12, tuple(range(12)))]


def _sequences(make_ids: MakeIds, is_causal: bool = False) -> list[TokenSequence]:
    return [
        TokenSequence(
            input_ids=make_ids(length, seed),
            predicted_from=places,
            targets=make_ids(len(places), seed + 50),
            is_causal=is_causal,
        )
        for seed, (length, places) in enumerate(SHAPES)
    ]


def _plain(model: PreTrainedModel, sequences: Sequence[TokenSequence]) -> Tensor:
    """[N]: the model's own log-probabilities under SDPA with an explicit mask, one sequence at a time."""
    rows = []
    for sequence in sequences:
        square = torch.ones(1, 1, sequence.num_input_tokens, sequence.num_input_tokens, dtype=torch.bool)
        ids = torch.tensor([sequence.input_ids])
        mask = square.tril() if sequence.is_causal else square
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        logprob = logits[0, list(sequence.predicted_from)].log_softmax(-1)
        rows.append(logprob.gather(-1, torch.tensor(sequence.targets, dtype=torch.int64)[:, None])[:, 0])
    return torch.cat(rows)


def _score(model: PreTrainedModel, sequences: Sequence[TokenSequence], layout: RowLayout = "shared") -> Tensor:
    bind_score(model)
    logprob: Tensor = model.score(pack(sequences, layout), implementation="chunked").logprob
    return logprob


def _gradients(model: PreTrainedModel, logprob: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (logprob * torch.linspace(-1, 1, len(logprob))).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("layout", ["packed", "shared"])
@pytest.mark.parametrize("name", ["qwen3 tied", "llama"])
def test_packed_scores_and_gradients_are_those_of_plain_bidirectional_attention(
    name: str, layout: RowLayout, make_model: MakeModel, make_ids: MakeIds
) -> None:
    sequences = _sequences(make_ids)
    ours, plain = make_model(name), make_model(name, "sdpa")
    actual, expected = _score(ours, sequences, layout), _plain(plain, sequences)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    found, wanted = _gradients(ours, actual), _gradients(plain, expected)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=2e-5 * max(1.0, value.abs().max().item()), rtol=0)


def test_packed_scores_are_those_of_each_alone(make_model: MakeModel, make_ids: MakeIds) -> None:
    model, sequences = make_model(), _sequences(make_ids)
    with torch.no_grad():
        alone = torch.cat([_score(model, [sequence]) for sequence in sequences])
        torch.testing.assert_close(_score(model, sequences), alone, atol=4e-6, rtol=0)


def test_equal_sequences_share_nothing(make_model: MakeModel, make_ids: MakeIds) -> None:
    """What a token sees after it belongs to its sequence: a common beginning must not be computed once."""
    prompt = make_ids(40, 1)
    sequences = [
        TokenSequence(input_ids=prompt + make_ids(5, seed), predicted_from=(40, 44), targets=(7, 8), is_causal=False)
        for seed in (2, 3)
    ]
    assert pack(sequences, "shared").input_ids.numel() == 90
    assert [len(indices) for indices in forward_passes(sequences, 60, "shared")] == [1, 1]
    with torch.no_grad():
        actual, expected = _score(make_model(), sequences), _plain(make_model(attention="sdpa"), sequences)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_causal", [True, False])
def test_a_later_token_changes_an_earlier_score_only_without_causality(
    is_causal: bool, make_model: MakeModel, make_ids: MakeIds
) -> None:
    model, (neighbour, *_), ids = make_model(), _sequences(make_ids), make_ids(10, 7)
    places = (1, 4, 8)
    scores = []
    for last in (ids[9], (ids[9] + 1) % 53):
        changed = TokenSequence(
            input_ids=(*ids[:9], last), predicted_from=places, targets=(5, 6, 7), is_causal=is_causal
        )
        others = [] if is_causal else [neighbour]
        with torch.no_grad():
            scores.append(_score(model, [changed, *others]))
    if is_causal:
        assert torch.equal(scores[0], scores[1])
    else:
        assert ((scores[0] - scores[1])[: len(places)].abs() > 1e-3).all()
        torch.testing.assert_close(scores[0][len(places) :], scores[1][len(places) :], atol=2e-6, rtol=0)


def test_plain_attention_takes_both_kinds_in_one_pass(make_model: MakeModel, make_ids: MakeIds) -> None:
    both = [*_sequences(make_ids), *_sequences(make_ids, is_causal=True)]
    order = [7, 0, 3, 9, 1, 11, 2, 8, 4, 5, 6, 10]
    sequences = [both[index] for index in order]
    with torch.no_grad():
        actual, expected = _score(make_model(), sequences), _plain(make_model(attention="sdpa"), sequences)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_rows_of_such_sequences_are_scored(make_model: MakeModel, make_ids: MakeIds) -> None:
    """A denoiser's: the student predicts masked places in two steps, its teacher all of them at once."""
    prompt, ids, masked = make_ids(5, 1), make_ids(4, 2), 3
    steps = [(0, 2), (1, 3)]
    student, known = [], dict[int, int]()
    for step in steps:
        completion = [known.get(place, masked) for place in range(4)]
        student.append(
            TokenSequence(
                input_ids=(*prompt, *completion),
                predicted_from=tuple(5 + place for place in step),
                targets=tuple(ids[place] for place in step),
                is_causal=False,
            )
        )
        known |= {place: ids[place] for place in step}
    targets = tuple(token_id for sequence in student for token_id in sequence.targets)
    teacher = TokenSequence(
        input_ids=(*make_ids(9, 3), *[masked] * 4), predicted_from=(9, 11, 10, 12), targets=targets, is_causal=False
    )
    row = ScoreRow(
        student=tuple(student),
        teachers=((teacher,),),
        context_weight=(1.0,),
        loss_mask=torch.ones(4, dtype=torch.bool),
        sampled_logprob=torch.zeros(4),
        step_index=torch.tensor([0, 0, 1, 1]),
    )
    plain = make_model(attention="sdpa")
    scores = Scorer().score(make_model(), LiveTeacher(), [row], ScoreRequest())
    torch.testing.assert_close(scores.student_logprob[0], _plain(plain, student), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.teacher_logprob[0, 0], _plain(plain, [teacher]), atol=1e-5, rtol=0)
    assert scores.step_index.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padded_rows_are_refused(implementation: str, make_model: MakeModel, make_ids: MakeIds) -> None:
    sequences = _sequences(make_ids)
    with pytest.raises(ValueError, match="not causal cannot be padded: they would see") as info:
        Scorer().features(make_model(attention=implementation), sequences, [0])
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_attention_that_is_causal_refuses_them(implementation: str, make_ids: MakeIds) -> None:
    segments = pack(_sequences(make_ids)).segments
    assert segments is not None
    with pytest.raises(ValueError, match=f"policy.attention {implementation} is causal, and some sequences are not"):
        segment_arguments(implementation, segments)
    mixed = Segments([Segment(start=0, length=2), Segment(start=2, length=2, is_causal=False)])
    with pytest.raises(ValueError, match="holds causal sequences and others that are not; score them apart"):
        segment_arguments(implementation, mixed)


def _stand_in_kernels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """What torch documents of ``varlen_attn``: positions count from a segment's last, -1 is a window without end."""
    query_starts, key_starts = cu_seq_q.tolist(), cu_seq_k.tolist()
    before, after = window_size
    outputs = []
    for segment in range(len(query_starts) - 1):
        queries = query[query_starts[segment] : query_starts[segment + 1]]
        keys, values = (states[key_starts[segment] : key_starts[segment + 1]] for states in (key, value))
        place = torch.arange(len(queries))[:, None] + len(keys) - len(queries)
        ahead = torch.arange(len(keys)) - place
        is_seen = ((before < 0) | (-ahead <= before)) & ((after < 0) | (ahead <= after))
        own = (states.transpose(0, 1) for states in (queries, keys, values))
        attended = scaled_dot_product_attention(*own, attn_mask=is_seen, scale=scale, enable_gqa=enable_gqa)
        outputs.append(attended.transpose(0, 1))
    return torch.cat(outputs)


def _stand_in_of_torch_2_11(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """The same without ``enable_gqa``: as many heads of keys as of queries."""
    assert query.shape[1] == key.shape[1] == value.shape[1]
    return _stand_in_kernels(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


@pytest.mark.parametrize("stand_in", [_stand_in_kernels, _stand_in_of_torch_2_11])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("is_causal", [True, False])
def test_kernels_are_asked_for_what_plain_attention_does(
    is_causal: bool, window: int | None, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, on a stand-in that follows the documentation of torch's kernels."""
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=stand_in))
    assert attention._has_varlen_kernels.__wrapped__()
    starts, lengths = (0, 5, 6), (5, 1, 4)
    segments = [
        Segment(start=start, length=length, is_causal=is_causal) for start, length in zip(starts, lengths, strict=True)
    ]
    if is_causal:
        segments.append(Segment(start=10, length=7, prefix=(Span(0, 3),)))
    qkv = [torch.randn(sum(segment.length for segment in segments), heads, 8) for heads in (4, 2, 2)]
    row = Segments(segments)
    expected = attention._sdpa_by_shape(*qkv, row, 0.3, window)
    torch.testing.assert_close(attention._varlen_kernels(*qkv, row, 0.3, window), expected, atol=1e-6, rtol=0)


def test_kernels_that_run_one_kind_at_a_time_refuse_both() -> None:
    mixed = Segments([Segment(start=0, length=2), Segment(start=2, length=2, is_causal=False)])
    with pytest.raises(ValueError, match="one forward pass holds causal sequences and others that are not"):
        assert mixed.is_causal


def test_no_sequence_is_longer_than_a_sliding_window(make_model: MakeModel, make_ids: MakeIds) -> None:
    model = make_model("gemma2")  # a window of 4
    short, long = (
        TokenSequence(input_ids=make_ids(length, 1), predicted_from=(0,), targets=(5,), is_causal=False)
        for length in (4, 5)
    )
    with torch.no_grad():
        whole = _score(model, [short])
        assert whole.isfinite().all()
        with pytest.raises(ValueError, match="not causal cannot be longer than a model's sliding window"):
            _score(model, [short, long])
