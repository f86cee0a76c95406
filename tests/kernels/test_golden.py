"""The definitions, and the fast paths, against the numbers of the authors' implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sgsd_kernels import gated_polarity, gated_support
from sgsd_kernels.gate import reference
from torch import Tensor

NUM_CASES = 6
DTYPES = [torch.float64, torch.float32]
SETTINGS = ("gate_temperature", "log_ratio_clip", "stance_threshold", "support_top_k")
OUR_NAMES = {
    "student_entropy_sum": "student_entropy_sum",
    "teacher_entropy_sum": "teacher_entropy_sum",
    "entropy_count": "num_entropy_tokens",
    "sgsd_support_score": "stance_score",
    "sgsd_support_score_raw": "stance_score_raw",
    "sgsd_gate_row_loss": "gated_loss",
    "sgsd_local_support_divergence": "support_divergence",
    "sgsd_local_support_size": "support_size",
    "sgsd_token_mask_keep_fraction": "kept_token_frac",
    "sgsd_clipped_token_fraction": "clipped_token_frac",
    "sgsd_below_threshold_fraction": "below_threshold_frac",
    "sgsd_helpful_fraction": "helpful_frac",
    "sgsd_harmful_fraction": "misleading_frac",
    "sgsd_neutral_fraction": "neutral_frac",
}

Case = tuple[dict[str, Any], Callable[[str], Tensor]]


@pytest.fixture(scope="module")
def golden(shared_golden: Path) -> Callable[[int], Case]:
    arrays = np.load(shared_golden / "sgsd_public.npz")
    settings = json.loads((shared_golden / "sgsd_public.json").read_text())
    assert len(settings) == NUM_CASES

    def case(index: int) -> Case:
        return settings[index], lambda name: torch.as_tensor(arrays[f"{index}__{name}"])

    return case


def assert_matches(actual: Tensor, expected: Tensor | float) -> None:
    """Within 1e-5 relative to the largest entry. The inputs were rounded to float32, which sets the limit."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual.detach().double(), expected, rtol=0, atol=1e-5 * max(scale, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", range(NUM_CASES))
def test_the_reference_reproduces_loss_gradient_and_metrics(
    golden: Callable[[int], Case], index: int, dtype: torch.dtype
) -> None:
    settings, array = golden(index)
    student_logits = array("student_logits").to(dtype).requires_grad_()
    output = reference.gated_polarity_loss(
        student_logits,
        array("teacher_logits").to(dtype),
        array("completion_ids"),
        array("loss_mask"),
        array("context_weights"),
        array("rewards"),
        **{name: settings[name] for name in SETTINGS},
    )
    (gradient,) = torch.autograd.grad(output.loss, student_logits)
    assert output.loss.dtype == dtype
    assert_matches(output.loss, array("loss"))
    assert_matches(gradient, array("grad_student_logits"))
    assert {OUR_NAMES[name] for name in settings["metrics"]} == set(output.metrics)
    for name, value in settings["metrics"].items():
        assert_matches(output.metrics[OUR_NAMES[name]], value)


@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [(name, dtype) for name in ("reference", "chunked") for dtype in DTYPES] + [("triton", torch.float32)],
)
@pytest.mark.parametrize("index", range(NUM_CASES))
def test_every_implementation_of_the_gate_reproduces_loss_and_gradient(
    golden: Callable[[int], Case], index: int, dtype: torch.dtype, implementation: Any
) -> None:
    settings, array = golden(index)
    if settings["support_top_k"] > 0 and implementation != "chunked":
        pytest.skip("the gate on a local support has one implementation")
    gate_settings = {name: settings[name] for name in SETTINGS[:3]}
    student_logits = array("student_logits").to(dtype).requires_grad_()
    teacher_logits = array("teacher_logits").to(dtype)
    outcome = torch.where(array("rewards") > 0, 1, -1)
    common = (array("loss_mask"), array("context_weights"), outcome)
    ids = array("completion_ids")
    if settings["support_top_k"] > 0:
        student, teacher, target_slot = on_support(student_logits, teacher_logits, ids, settings["support_top_k"])
        output = gated_support(student, teacher, target_slot, *common, **gate_settings)
    else:
        student = student_logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        targets = ids[:, None, :, None].expand(*teacher_logits.shape[:3], 1)
        teacher = teacher_logits.log_softmax(-1).gather(-1, targets).squeeze(-1)
        output = gated_polarity(student, teacher, *common, **gate_settings, implementation=implementation)
    loss = output.rollout_loss.mean()
    (gradient,) = torch.autograd.grad(loss, student_logits)
    assert_matches(loss, array("loss"))
    assert_matches(gradient, array("grad_student_logits"))
    for name, ours in (
        ("sgsd_support_score", output.stance_score),
        ("sgsd_support_score_raw", output.raw_stance_score),
        ("sgsd_gate_row_loss", output.gated_loss),
        ("sgsd_helpful_fraction", (output.polarity > 0).double()),
        ("sgsd_harmful_fraction", (output.polarity < 0).double()),
    ):
        assert_matches(ours.mean(), settings["metrics"][name])


def on_support(student: Tensor, teacher: Tensor, ids: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Both log-probabilities [B, K, C, top_k + 1] on the support, with autograd through the gather, and the target's
    slot."""
    targets = ids[:, None, :, None].expand(*teacher.shape[:3], 1)
    listed = teacher.topk(top_k, dim=-1).indices
    is_target = listed == targets
    is_listed = is_target.any(-1, keepdim=True)
    slots = torch.cat([listed, targets], dim=-1)
    unused = torch.cat([torch.zeros_like(is_target), is_listed], dim=-1)
    expanded = student.unsqueeze(1).expand_as(teacher)
    student_local = expanded.gather(-1, slots).masked_fill(unused, -torch.inf).log_softmax(-1)
    teacher_local = teacher.gather(-1, slots).masked_fill(unused, -torch.inf).log_softmax(-1)
    target_slot = torch.cat([is_target, ~is_listed], dim=-1).int().argmax(-1)
    return student_local, teacher_local, target_slot
