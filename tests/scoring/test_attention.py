"""Our variable-length attention against plain attention on each segment alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedModel, Qwen3Config, Qwen3NextConfig

from sgsd_lightning.scoring import attention
from sgsd_lightning.scoring.attention import packed_forward, resolve_attention, row_layout, varlen_attention
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import RowLayout, pack
from sgsd_lightning.scoring.segments import Segment, Segments
from sgsd_lightning.types import TokenSequence


def _qkv(length: int) -> list[Tensor]:
    return [torch.randn(1, heads, length, 8, requires_grad=True) for heads in (4, 2, 2)]


def _segments(lengths: list[int]) -> Segments:
    starts = accumulate(lengths, initial=0)
    return Segments([Segment(start=start, length=length) for start, length in zip(starts, lengths, strict=False)])


def _run(qkv: list[Tensor], lengths: list[int], sliding_window: int | None = None) -> Tensor:
    output, weights = varlen_attention(
        nn.Identity(), *qkv, None, scaling=0.3, sliding_window=sliding_window, segments=_segments(lengths)
    )
    assert weights is None
    return output


@pytest.mark.parametrize("lengths", [[7], [1, 1, 1], [3, 5, 3, 1], [4, 4, 4], [2, 9, 1, 2]])
def test_each_segment_is_attended_to_alone(lengths: list[int]) -> None:
    qkv = _qkv(sum(lengths))
    upstream = torch.randn(1, sum(lengths), 4, 8)
    actual = _run(qkv, lengths)
    gradients = torch.autograd.grad(actual, qkv, upstream)
    segments = zip(*(states.split(lengths, dim=2) for states in qkv), strict=True)
    parts = [scaled_dot_product_attention(*s, is_causal=True, scale=0.3, enable_gqa=True) for s in segments]
    expected = torch.cat(parts, dim=2).transpose(1, 2)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    for value, reference in zip(gradients, torch.autograd.grad(expected, qkv, upstream), strict=True):
        torch.testing.assert_close(value, reference, atol=1e-5, rtol=0)


def _first_queries_see_first_keys(query: Tensor, key: Tensor, value: Tensor, segments: Segments, *rest: Any) -> Tensor:
    """The other convention for fewer queries than keys."""
    outputs = []
    for segment in segments.segments:
        places = segment.key_places()
        own = [query[places[segment.prefix_length :]], key[places], value[places]]
        attended = scaled_dot_product_attention(*(s.transpose(0, 1) for s in own), is_causal=True, enable_gqa=True)
        outputs.append(attended.transpose(0, 1))
    return torch.cat(outputs)


def _all_keys(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: None, window: int) -> Tensor:
    return attention._sdpa_by_shape(query, key, value, segments, scaling, None)


@pytest.mark.parametrize(
    ("kernels", "agree", "said"),
    [
        (attention._sdpa_by_shape, True, ""),
        (_first_queries_see_first_keys, False, "not used"),
        (_all_keys, False, "sliding window of 3"),
    ],
)
def test_kernels_of_another_convention_are_found_out_and_not_used(
    kernels: Callable[..., Tensor],
    agree: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(attention, "_varlen_kernels", kernels)
    with caplog.at_level(logging.WARNING):
        assert attention._kernels_agree.__wrapped__(torch.device("cpu"), torch.bfloat16) == agree
    assert said in caplog.text


def test_kernels_are_tried_under_any_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bf16 policy is loaded with its GPU as the default device; ``meta`` stands for one here."""
    monkeypatch.setattr(attention, "_varlen_kernels", attention._sdpa_by_shape)
    with torch.device("meta"):
        assert attention._kernels_agree.__wrapped__(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("window", [1, 2, 5, 20])
def test_a_sliding_window_sees_that_many_positions_itself_included(window: int) -> None:
    qkv = _qkv(12)
    actual = _run(qkv, [9, 3], sliding_window=window)
    before = torch.autograd.grad(actual[0, 8].sum(), qkv[2], retain_graph=True)[0]
    is_seen = before[0, 0].abs().sum(-1) > 0
    assert is_seen.nonzero().flatten().tolist() == list(range(max(0, 9 - window), 9))


@pytest.mark.parametrize("argument", ["softcap", "s_aux"])
def test_what_it_cannot_do_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="no logit cap and no attention sinks"):
        varlen_attention(nn.Identity(), *_qkv(3), None, **{argument: torch.ones(1)})


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="runs without dropout"):
        varlen_attention(nn.Identity(), *_qkv(3), None, dropout=0.1)


def test_a_model_that_loses_the_boundaries_is_refused(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model()
    batch = pack([TokenSequence.causal((2, 3), (4,))])
    with packed_forward(), pytest.raises(ValueError, match="does not receive the boundaries of packed sequences"):
        model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)


@pytest.mark.parametrize("name", ["qwen3 tied", "gemma2"])
def test_padded_batches_and_generation_are_those_of_eager_attention(
    name: str, make_model: Callable[..., PreTrainedModel]
) -> None:
    ours, eager = make_model(name), make_model(name, "eager")
    ids = torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    expected, actual = (m(input_ids=ids, attention_mask=mask).logits for m in (eager, ours))
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    assert torch.equal(ours.generate(ids, **options), eager.generate(ids, **options))


def test_auto_is_our_own_without_a_gpu() -> None:
    assert resolve_attention("auto", Qwen3Config(), torch.bfloat16) == "sgsd_varlen"
    assert resolve_attention("auto", LlamaConfig(), torch.float32) == "sgsd_varlen"


def test_auto_keeps_away_from_what_cannot_be_packed() -> None:
    assert resolve_attention("auto", Gemma2Config(), torch.float32) == "eager"
    assert resolve_attention("auto", Qwen3NextConfig(), torch.float32) == "sdpa"


def test_a_name_is_taken_as_it_is() -> None:
    assert resolve_attention("eager", Qwen3Config(), torch.float32) == "eager"


def test_the_choice_of_auto_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        resolve_attention("auto", Qwen3Config(), torch.float32)
    assert "auto resolved to sgsd_varlen" in caplog.text


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("sgsd_varlen", "shared"),
        ("flash_attention_2", "packed"),
        ("flash_attention_3", "packed"),
        ("flex_attention", "packed"),
        ("sdpa", "padded"),
        ("eager", "padded"),
    ],
)
def test_rows_are_packed_where_that_costs_no_mask_over_all_of_them(name: str, layout: RowLayout) -> None:
    config, recurrent = Qwen3Config(), Qwen3NextConfig()
    config._attn_implementation = recurrent._attn_implementation = name
    assert row_layout(config) == layout
    assert row_layout(recurrent) == "padded"


# lengths of prompt and completion: segments of one token, of the same length, ragged ones; longer than a window of 4
RAGGED = [(1, 1), (5, 7), (1, 1), (9, 4), (3, 9), (2, 6), (1, 12)]
IMPLEMENTATIONS = ["sgsd_varlen", "sdpa", "eager", "flex_attention"]


@pytest.fixture
def windowed_model() -> Callable[[str], PreTrainedModel]:
    """A tiny Qwen3 with grouped heads, and a window of 4 in its second layer, under any attention implementation."""

    def make(implementation: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=53,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.3,
            layer_types=["full_attention", "sliding_attention"],
            use_sliding_window=True,
            sliding_window=4,
        )
        model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=torch.float32)
        bind_score(model)
        return model

    return make


@pytest.fixture
def sequences(make_ids: Callable[[int, int], tuple[int, ...]]) -> list[TokenSequence]:
    return [
        TokenSequence.causal(make_ids(prompt, seed), make_ids(completion, seed + 100))
        for seed, (prompt, completion) in enumerate(RAGGED)
    ]


@pytest.fixture
def _without_compiling() -> Iterator[None]:
    """Runs what transformers compiles, flex attention and its masks, by the operations that it is made of."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _check_against_each_alone(
    model: PreTrainedModel, eager: PreTrainedModel, sequences: Sequence[TokenSequence]
) -> None:
    with torch.no_grad():
        actual = model.score(pack(sequences), implementation="chunked").logprob
        expected = [
            eager(input_ids=torch.tensor([s.input_ids]), use_cache=False)
            .logits[0, list(s.predicted_from)]
            .log_softmax(-1)
            .gather(-1, torch.tensor(s.targets)[:, None])[:, 0]
            for s in sequences
        ]
    torch.testing.assert_close(actual, torch.cat(expected), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_without_compiling")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_packed_sequences_score_as_each_does_alone_under_eager_attention(
    implementation: str, windowed_model: Callable[[str], PreTrainedModel], sequences: list[TokenSequence]
) -> None:
    _check_against_each_alone(windowed_model(implementation), windowed_model("eager"), sequences)


@pytest.mark.slow
def test_so_they_do_under_compiled_flex_attention(
    windowed_model: Callable[[str], PreTrainedModel], sequences: list[TokenSequence]
) -> None:
    _check_against_each_alone(windowed_model("flex_attention"), windowed_model("eager"), sequences)


@pytest.mark.usefixtures("_without_compiling")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_another_neighbour_changes_nothing(
    implementation: str, windowed_model: Callable[[str], PreTrainedModel], sequences: list[TokenSequence]
) -> None:
    model = windowed_model(implementation)
    changed = TokenSequence.causal((7,) * RAGGED[1][0], (8,) * RAGGED[1][1])
    with torch.no_grad():
        before, after = (
            model.score(pack(packed), implementation="chunked").logprob.split([length for _, length in RAGGED])
            for packed in (sequences, [sequences[0], changed, *sequences[2:]])
        )
    assert (before[1] != after[1]).any()
    for index in (0, *range(2, len(RAGGED))):
        torch.testing.assert_close(before[index], after[index], atol=1e-6, rtol=0)


def test_flex_attention_is_not_trained_with_on_a_cpu(
    windowed_model: Callable[[str], PreTrainedModel], sequences: list[TokenSequence]
) -> None:
    with pytest.raises(ValueError, match="flex_attention has no backward pass on a CPU; set it to auto"):
        windowed_model("flex_attention").score(pack(sequences))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("implementation", ["flash_attention_2", "flash_attention_3", "flex_attention", "sgsd_varlen"])
def test_on_a_gpu_packed_sequences_score_as_padded_ones_do_under_sdpa(
    implementation: str, windowed_model: Callable[[str], PreTrainedModel], sequences: list[TokenSequence]
) -> None:
    try:
        model = windowed_model(implementation).to("cuda", torch.bfloat16)
    except ImportError as error:
        pytest.skip(str(error))
    sdpa = windowed_model("sdpa").to("cuda", torch.bfloat16)
    prompt = sequences[1].shareable_ids
    sequences += [TokenSequence.causal(prompt, (8,) * length) for length in (1, 3, 9)]
    scores = []
    for scored in (model, sdpa):
        scores.append(scored.score(pack(sequences, row_layout(scored.config)).to(scored.device)).logprob)
        scores[-1].sum().backward()
    torch.testing.assert_close(*scores, atol=0.3, rtol=0)
    ours, reference = (m.get_input_embeddings().weight.grad.float() for m in (model, sdpa))
    assert (ours - reference).norm() <= 0.05 * reference.norm()
