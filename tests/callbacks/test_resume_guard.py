"""What a run is known by: another base model of the same shape is told apart, a moved file is not."""

from __future__ import annotations

import copy
import dataclasses
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.utils import chat_template_utils

from sgsd_lightning.callbacks import ResumeGuard
from sgsd_lightning.checkpoints.identity import (
    differences,
    frozen_weights_digest,
    parameters_digest,
    problem_fields_digest,
    problems_digest,
    settings_identity,
)
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.data import JsonlProblems, ProblemDataModule
from sgsd_lightning.policy import LoraSettings
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.types import Problem
from tests.support.tiny import PROBLEMS, tiny_module, tiny_policy

CONFIG: dict[str, Any] = {
    "seed_everything": 1,
    "trainer": {"max_steps": 3, "gradient_clip_val": None, "devices": 1, "precision": "32-true"},
    "model": {"init_args": {"objective": {"init_args": {"log_ratio_clip": 3.0}}, "contexts": {"init_args": {}}}},
    "data": {"init_args": {"batch_size": 2, "drop_last": True, "train": {"init_args": {"path": "a.jsonl"}}}},
}


def changed(*path: str, to: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    inner = config
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return config


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (changed("seed_everything", to=2), ["seed_everything"]),
        (changed("trainer", "gradient_clip_val", to=0.1), ["trainer.gradient_clip_val"]),
        (changed("trainer", "precision", to="bf16-mixed"), ["trainer.precision"]),
        (changed("data", "init_args", "drop_last", to=False), ["data.init_args.drop_last"]),
        (changed("model", "init_args", "objective", to="x"), ["model.init_args.objective"] * 2),
        (changed("trainer", "max_steps", to=9), []),
        (changed("collapse_guard", to={"action": "stop"}), []),
        (changed("trainer", "devices", to=2), []),
        (changed("data", "init_args", "batch_size", to=1), []),
        (changed("data", "init_args", "train", "init_args", "path", to="b.jsonl"), []),
    ],
)
def test_settings_count_if_a_step_depends_on_them(config: dict[str, Any], named: list[str]) -> None:
    saved, now = settings_identity(CONFIG), settings_identity(config)
    found = differences(saved, now, saved.keys() | now.keys())
    assert len(found) == len(named)
    for line, name in zip(found, named, strict=True):
        assert line.startswith(name)


def test_contents_are_told_apart() -> None:
    lora = LoraSettings(rank=2)
    model, same, other = (tiny_policy(lora=lora, seed=seed).load_model() for seed in (0, 0, 1))
    assert parameters_digest(model) == parameters_digest(other)
    assert frozen_weights_digest([model]) == frozen_weights_digest([same])
    assert frozen_weights_digest([model]) != frozen_weights_digest([other])
    with torch.no_grad():
        next(p for p in same.parameters() if p.requires_grad).add_(1)
    assert frozen_weights_digest([model]) == frozen_weights_digest([same])
    assert parameters_digest(model) != parameters_digest(tiny_policy(lora=LoraSettings(rank=3)).load_model())
    reworded = [Problem(problem_id="p0", text="Say", answer=PROBLEMS[0].answer), *PROBLEMS[1:]]
    assert len({problems_digest(p) for p in (PROBLEMS, reworded, PROBLEMS[::-1])}) == 3


@pytest.mark.parametrize("other", [{"solution": "s"}, {"shards": ("a",)}, {"metadata": {"level": 2}}])
def test_every_field_that_a_context_can_show_counts(other: dict[str, Any]) -> None:
    problem = Problem(problem_id="p", text="?", answer="1", metadata={"level": 1})
    assert problem_fields_digest([problem]) != problem_fields_digest([dataclasses.replace(problem, **other)])
    assert problem_fields_digest([problem]) == problem_fields_digest([dataclasses.replace(problem)])


def test_prompts_count_as_the_model_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def contents(template: str) -> dict[str, str]:
        data = ProblemDataModule(train=JsonlProblems("unread"))
        data.problems = {"train": PROBLEMS}
        trainer: Any = SimpleNamespace(accumulate_grad_batches=1, datamodule=data, world_size=1)
        guard = ResumeGuard()
        guard.setup(trainer, tiny_module(prompts=ChatPrompts(chat_template=template)), "fit")
        return guard._contents

    def changed_names(first: dict[str, str], second: dict[str, str]) -> set[str]:
        return {name for name in first if first[name] != second[name]}

    each = "{% for m in messages %}{{ m.content }}{% endfor %}<|im_start|>"
    plain = contents(each)
    assert changed_names(plain, contents(each)) == set()
    assert changed_names(plain, contents(each + "!")) == {"chat template", "rendered prompts"}
    dated = []
    for day in (1, 2):
        monkeypatch.setattr(
            chat_template_utils, "datetime", SimpleNamespace(now=lambda day=day: datetime(2026, 1, day))
        )
        dated.append(contents("{{ strftime_now('%d %b %Y') }}" + each))
    assert changed_names(*dated) == {"rendered prompts"}
    assert all(one["rendered prompts"].endswith("(the chat template reads the clock)") for one in dated)


def test_an_identity_survives_a_checkpoint() -> None:
    guard = ResumeGuard()
    guard.settings = settings_identity(CONFIG)
    state = guard.state_dict()
    assert all(isinstance(value, str) for value in state.values())
    other = ResumeGuard()
    other.load_state_dict(state)
    other.settings = settings_identity(changed("seed_everything", to=2))
    with pytest.raises(ValueError, match="seed_everything: 1 in the checkpoint, 2 now"):
        other._compare()
    assert other.allow_changes is False


def test_what_the_student_is_shown_is_told_apart_by_content(tmp_path: Path) -> None:
    def contents(path: Path, title: str) -> dict[str, str]:
        skill = {"skill_id": "gen_1", "title": title, "principle": "P", "when_to_apply": "W"}
        mistake = {"mistake_id": "err_1", "description": "D", "why_it_happens": "Y", "how_to_avoid": "H"}
        path.write_text(json.dumps({"general_skills": [skill], "common_mistakes": [mistake]}))
        guard = ResumeGuard()
        trainer: Any = SimpleNamespace(accumulate_grad_batches=1, datamodule=None)
        guard.setup(trainer, tiny_module(guidance=SkillPairs(str(path), num_contexts=1)), "fit")
        return guard._contents

    first = contents(tmp_path / "a.json", "T")
    assert contents(tmp_path / "b.json", "T") == first
    assert contents(tmp_path / "a.json", "other") != first
