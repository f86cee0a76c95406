"""Bytes of activations against what torch keeps and makes on the CPU."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.planning.activations import no_grad_bytes, student_bytes, student_momentary_bytes
from sgsd_lightning.planning.memory import STUDENT, TEACHERS, plan_memory
from sgsd_lightning.planning.run_settings import RunSettings
from tests.planning.live_bytes import LiveBytes
from tests.planning.sized_runs import LORA, rollouts_batch, scored_model, small_run

CAST = "weights cast by autocast"
cases = pytest.mark.parametrize(
    ("dtype", "autocast"), [("float32", None), ("bfloat16", None), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]
)
methods = pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])


def _precision(autocast: str | None) -> contextlib.AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()


def _case(lora: object, dtype: str, autocast: str | None, **settings: object) -> tuple[PreTrainedModel, RunSettings]:
    model = scored_model(lora=lora, dtype=dtype, **settings)
    return model, small_run(model, dtype=dtype, autocast_dtype=autocast, **settings)


def _cast_bytes(run: RunSettings, phase: str) -> int:
    items = {item.name: item.bytes_by_phase for item in plan_memory(run).items}
    return items.get(CAST, {}).get(phase, 0)


@methods
@cases
def test_what_autograd_keeps(lora: object, dtype: str, autocast: str | None) -> None:
    model, run = _case(lora, dtype, autocast)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _precision(autocast):
        loss = model.score(rollouts_batch(), implementation="chunked").logprob.sum()
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert loss.requires_grad
    assert student_bytes(run) + _cast_bytes(run, STUDENT) == pytest.approx(measured, rel=0.06)


@pytest.mark.parametrize(
    ("dtype", "autocast", "gradient_checkpointing"),
    [("float32", None, False), ("float32", None, True), ("bfloat16", None, True), ("float32", "bfloat16", True)],
)
@methods
def test_the_peak_of_forward_and_backward(
    lora: object, dtype: str, autocast: str | None, gradient_checkpointing: bool
) -> None:
    model, run = _case(lora, dtype, autocast, gradient_checkpointing=gradient_checkpointing)
    with _precision(autocast):
        model.score(rollouts_batch(), implementation="chunked").logprob.sum().backward()
    with LiveBytes() as live, _precision(autocast):
        model.score(rollouts_batch(), implementation="chunked").logprob.sum().backward()
    counted = student_bytes(run) + student_momentary_bytes(run) + _cast_bytes(run, STUDENT)
    assert counted == pytest.approx(live.peak, rel=0.2)


@methods
@cases
def test_the_peak_without_gradient(lora: object, dtype: str, autocast: str | None) -> None:
    model, run = _case(lora, dtype, autocast)
    with LiveBytes() as live, torch.no_grad(), _precision(autocast):
        model.score(rollouts_batch(), implementation="chunked")
    counted = no_grad_bytes(run, run.num_rollouts * run.student_length) + _cast_bytes(run, TEACHERS)
    assert counted == pytest.approx(live.peak, rel=0.25)


def test_live_bytes_sees_what_is_made_and_dropped() -> None:
    outside = torch.zeros(1000)
    with LiveBytes() as live:
        kept = outside + 1
        view = kept[:10]
        (kept * 2).sum()
        assert live.now == 4000
        del kept, view
        assert live.now == 0
    assert 8000 <= live.peak <= 8004
