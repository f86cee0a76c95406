"""What a checkpoint says of the run that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.checkpoints.provenance import changed_settings, method_of, read_provenance

OBJECTIVE, CONTEXTS = "model.init_args.objective", "model.init_args.contexts"
SETTINGS = {
    f"{OBJECTIVE}.class_path": '"sgsd_lightning.objectives.GatedPolarity"',
    f"{OBJECTIVE}.init_args.polarity": '"validated"',
    f"{CONTEXTS}.class_path": '"sgsd_lightning.contexts.SkillPairs"',
    "model.init_args.evaluation.group_size": "4",
}


def checkpoint(folder: Path, callbacks: dict[str, Any]) -> Path:
    path = folder / "last.ckpt"
    torch.save({"global_step": 40, "callbacks": callbacks, "state_dict": {}}, path)
    return path


def test_it_names_file_step_and_method(tmp_path: Path) -> None:
    guard = {"settings": json.dumps(SETTINGS), "contents": "{}"}
    path = checkpoint(tmp_path, {"Another": {"settings": "x"}, "ResumeGuard": guard})
    found = read_provenance(path)
    assert str(found) == f"{path} (step 40; GatedPolarity, SkillPairs)"
    assert found.settings == SETTINGS


def test_a_run_from_python_has_no_method_to_name(tmp_path: Path) -> None:
    found = read_provenance(checkpoint(tmp_path, {}))
    assert "step 40; method unknown" in str(found)
    assert changed_settings(found.settings, SETTINGS) == []


def test_a_sum_names_what_it_adds() -> None:
    parts = [{"class_path": f"sgsd_lightning.objectives.{name}"} for name in ("GatedPolarity", "PolicyGradient")]
    summed = {
        f"{OBJECTIVE}.class_path": '"sgsd_lightning.objectives.WeightedSum"',
        f"{OBJECTIVE}.init_args.objectives": json.dumps(parts),
        f"{OBJECTIVE}.init_args.weights": "[1.0, 1.0]",
    }
    assert method_of(summed) == "WeightedSum(GatedPolarity, PolicyGradient)"


def test_what_was_trained_otherwise_is_told_and_how_it_is_evaluated_is_not() -> None:
    now = {
        **SETTINGS,
        f"{OBJECTIVE}.init_args.polarity": '"imitate"',
        "model.init_args.evaluation.group_size": "12",
        "model.init_args.seed": "1",
    }
    assert changed_settings(SETTINGS, now) == [
        f'{OBJECTIVE}.init_args.polarity: "validated" in the checkpoint, "imitate" now',
        "model.init_args.seed: not set in the checkpoint, 1 now",
    ]


def test_arguments_of_another_class_are_not_compared() -> None:
    now = {
        **SETTINGS,
        f"{OBJECTIVE}.class_path": '"sgsd_lightning.objectives.PolicyGradient"',
        f"{OBJECTIVE}.init_args.kl_weight": "0.0",
        "model.init_args.rollouts.init_args.group_size": "8",
    }
    del now[f"{OBJECTIVE}.init_args.polarity"]
    found = changed_settings({**SETTINGS, "model.init_args.rollouts.init_args.group_size": "4"}, now)
    assert [line.partition(": ")[0] for line in found] == [
        f"{OBJECTIVE}.class_path",
        "model.init_args.rollouts.init_args.group_size",
    ]


def test_a_checkpoint_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt: no such checkpoint"):
        read_provenance(tmp_path / "nowhere.ckpt")
