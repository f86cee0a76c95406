"""Our variable-length attention against plain attention on each segment alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Gemma2Config, LlamaConfig, PreTrainedModel, Qwen3Config, Qwen3NextConfig

from sgsd_lightning.policy.attention import can_pack, packed_forward, resolve_attention, varlen_attention
from sgsd_lightning.policy.packing import TokenSequence, pack


def _qkv(length: int) -> list[Tensor]:
    return [torch.randn(1, heads, length, 8, requires_grad=True) for heads in (4, 2, 2)]


def _run(qkv: list[Tensor], lengths: list[int], sliding_window: int | None = None) -> Tensor:
    boundaries = torch.tensor([0, *lengths]).cumsum(0).int()
    output, weights = varlen_attention(
        nn.Identity(), *qkv, None, scaling=0.3, sliding_window=sliding_window, cu_seq_lens_q=boundaries
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
    batch = pack([TokenSequence(prompt_ids=(2, 3), completion_ids=(4,))])
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


def test_only_attention_that_knows_segments_gets_packed_rows() -> None:
    names = ("sgsd_varlen", "flash_attention_2", "flash_attention_3", "sdpa", "eager", "flex_attention")
    assert [name for name in names if can_pack(name)] == ["sgsd_varlen", "flash_attention_2", "flash_attention_3"]
