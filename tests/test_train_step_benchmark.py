"""The benchmark of the training step: both schemes come to one gradient, and its results are written and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import train_step
from benchmarks.authors_scheme import authors_step, padded_tokens
from benchmarks.step_cases import StepSize, make_inputs, small_model
from sgsd_lightning.objectives import GatedPolarity

SIZE = StepSize(num_rollouts=3, num_contexts=3, student_prompt_tokens=9, teacher_prompt_tokens=20, completion_tokens=16)


def test_the_authors_scheme_and_ours_come_to_the_same_loss_and_gradient() -> None:
    model, objective = small_model(), GatedPolarity()
    inputs = make_inputs(SIZE, model.config.vocab_size)
    found = train_step.OurStep(objective, 64)(model, inputs)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    assert found == pytest.approx(authors_step(model, inputs, SIZE, objective), rel=1e-4)
    for name, parameter in model.named_parameters():
        difference = (gradients[name] - parameter.grad).norm()
        assert difference <= 1e-3 * parameter.grad.norm(), name
    assert any(gradient.any() for gradient in gradients.values())


def test_padding_is_counted() -> None:
    """One rollout of 16 tokens needs none on the right; teachers of 20 or fewer are padded to the longest."""
    inputs = make_inputs(SIZE, 100)
    num_run, num_padded = padded_tokens(inputs, SIZE)
    real = sum(
        len(prompt) + len(prompt_ids) + 2 * len(completion_ids)
        for prompt_ids, completion_ids, prompts in zip(
            inputs.prompt_ids, inputs.completion_ids, inputs.teacher_prompts, strict=True
        )
        for prompt in prompts
    )
    assert num_run - num_padded == real
    assert num_padded >= 2 * 3 * sum(16 - len(completion_ids) for completion_ids in inputs.completion_ids)


def test_a_disagreement_stops_the_benchmark() -> None:
    with pytest.raises(RuntimeError, match="the schemes disagree"):
        train_step._check_agreement({train_step.OURS: 0.1, train_step.AUTHORS: 0.2})


def test_the_quick_run_writes_a_result_file_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert train_step.main(["--quick", "--repeats=1", f"--out={tmp_path / 'found.json'}"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["scheme"] for row in found["rows"]} == {train_step.OURS, train_step.AUTHORS}
    assert all(row["status"] == "measured" for row in found["rows"])
    assert all(row["padding_frac"] == 0 for row in found["rows"] if row["scheme"] == train_step.OURS)
    assert (tmp_path / "found.png").stat().st_size > 1000
    assert "times ours" in capsys.readouterr().out
