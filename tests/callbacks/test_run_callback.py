"""Whole steps are handed to callbacks once, in the order of their phases, however they are listed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from sgsd_lightning.callbacks import (
    BankMaintenance,
    BestCheckpoint,
    CollapseGuard,
    NonfiniteLoss,
    RolloutTable,
    RunCheckpoint,
    RunStatistics,
)
from sgsd_lightning.callbacks.sampler_gap import SamplerGapAlarm
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.toy.world import TOY_BANK
from sgsd_lightning.training import RunCallback, StepPhase, StepReport
from sgsd_lightning.types import JudgedRollout
from tests.support.runs import Run, data_of, tiny_run
from tests.support.slow_writer import SlowWriter

MEASURED = ("time/", "memory/")


class Note(RunCallback):
    """Writes down when it was called, in a book that all share."""

    def __init__(self, phase: StepPhase, book: list[tuple[str, StepPhase, int]]) -> None:
        self.phase = phase
        self.book = book
        self.reports: list[StepReport] = []

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        assert trainer.global_step == report.step
        assert float(trainer.callback_metrics["objective/loss"]) == pytest.approx(report.metrics["objective/loss"])
        module.log(f"note/{self.phase.name}", float(report.step), batch_size=1)
        self.book.append(("step", self.phase, report.step))
        self.reports.append(report)

    def on_evaluated(
        self, trainer: Trainer, module: LightningModule, stage: str, judged: Sequence[JudgedRollout]
    ) -> None:
        self.book.append((stage, self.phase, len(judged)))


class Late(Callback):
    """One of Lightning's own, which counts micro-batches."""

    def __init__(self, book: list[tuple[str, StepPhase, int]]) -> None:
        self.book = book
        self.num_before: list[int] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.num_before.append(len(self.book))


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_is_handed_over_once_in_the_order_of_phases(micro_batches: int, seed: int, tmp_path: Path) -> None:
    book: list[tuple[str, StepPhase, int]] = []
    notes: list[Note] = [Note(phase, book) for phase in StepPhase]
    late = Late(book)
    callbacks: list[Callback] = [*notes, late]
    random.Random(seed).shuffle(callbacks)
    run = Run(
        trainer=lambda: {"callbacks": callbacks, "accumulate_grad_batches": micro_batches},
        global_batch=2,
        max_steps=2,
        validates=True,
    )
    module, trainer, _ = tiny_run(run, 1, tmp_path)
    trainer.fit(module, datamodule=data_of(run, 1))
    assert book == [("step", phase, step) for step in (1, 2) for phase in StepPhase]
    # Lightning's callbacks have their turn of a micro-batch before ours have the step
    num_phases = len(StepPhase)
    assert late.num_before == [0] * micro_batches + [num_phases] * micro_batches
    for note in notes:
        assert [len(report.micro_batches) for report in note.reports] == [micro_batches] * 2
        assert float(trainer.callback_metrics[f"note/{note.phase.name}"]) == 2
    assert len({id(report) for note in notes for report in note.reports}) == 2
    book.clear()
    trainer.limit_val_batches = 2
    trainer.validate(module, datamodule=data_of(run, 1), verbose=False)
    assert book == [("validate", phase, 4) for _ in range(2) for phase in StepPhase]


def test_an_incomplete_step_at_the_end_of_an_epoch_is_handed_over_with_what_there_was(tmp_path: Path) -> None:
    """Four micro-batches an epoch: a step of three, and one of a single micro-batch."""
    book: list[tuple[str, StepPhase, int]] = []
    note = Note(StepPhase.MEASURE, book)
    run = Run(
        trainer=lambda: {"callbacks": [note], "accumulate_grad_batches": 3},
        global_batch=2,
        num_problems=8,
        drop_last=False,
        max_steps=3,
    )
    module, trainer, _ = tiny_run(run, 1, tmp_path)
    trainer.fit(module, datamodule=data_of(run, 1))
    assert [len(report.micro_batches) for report in note.reports] == [3, 1, 3]
    assert [step for _, _, step in book] == [1, 2, 3]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        yield name, value.tolist() if isinstance(value, torch.Tensor) else value
        return
    for key, inner in items:
        yield from leaves(inner, f"{name}/{key}")


def everything(folder: Path, order: int, micro_batches: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run with every callback that deals with steps, listed in some order; all that it leaves behind."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    callbacks: list[Callback] = [
        BestCheckpoint(),
        RunCheckpoint(dirpath="checkpoints", every_n_train_steps=1),
        RolloutTable(every_n_steps=1),
        BankMaintenance(SlowWriter(seconds=0.0), every_n_steps=1, success_threshold=1.0),
        RunStatistics(),
        NonfiniteLoss(),
        CollapseGuard(),
        SamplerGapAlarm(),
    ]
    random.Random(order).shuffle(callbacks)
    run = Run(
        module=lambda: {"contexts": SkillPairs(TOY_BANK, num_contexts=2)},
        trainer=lambda: {
            "callbacks": callbacks,
            "accumulate_grad_batches": micro_batches,
            "enable_checkpointing": True,
            "limit_val_batches": 1,
            "val_check_interval": micro_batches,
            "check_val_every_n_epoch": None,
            "logger": CSVLogger(folder, name="metrics", version=0),
        },
        global_batch=2,
        max_steps=2,
    )
    module, trainer, _ = tiny_run(run, 1, folder)
    trainer.fit(module, datamodule=data_of(run, 1))
    checkpoint = torch.load("checkpoints/last.ckpt", weights_only=True)
    parts = dict(leaves(checkpoint))
    found: dict[str, Any] = {"checkpoint": {key: parts[key] for key in parts if str(folder) not in str(parts[key])}}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        found[name] = path.read_text() if path.suffix in (".json", ".jsonl", ".txt") else None
    header, *rows = (line.split(",") for line in Path("metrics/version_0/metrics.csv").read_text().splitlines())
    names = {column for column in header if not column.startswith(MEASURED)}
    found["metrics"] = [{name: dict(zip(header, row, strict=True))[name] for name in sorted(names)} for row in rows]
    return found


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_the_order_in_which_callbacks_are_listed_changes_nothing(
    micro_batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(tmp_path / "a", 0, micro_batches, monkeypatch)
    assert {"rollouts.jsonl", "evaluation.jsonl", "skills/updates.jsonl", "checkpoints/last.ckpt"} <= expected.keys()
    updates = [json.loads(line) for line in expected["skills/updates.jsonl"].splitlines()]
    assert any(update["added"] for update in updates), "the bank must have grown for its checkpoint to tell"
    bank = json.loads(expected["checkpoint"]["/sgsd_lightning/learners/policy/contexts/bank"])
    assert json.loads(expected["skills/latest.json"]) == bank
    assert len(expected["checkpoint"]) > 100
    for order in (1, 2):
        found = everything(tmp_path / f"{order}", order, micro_batches, monkeypatch)
        assert found.keys() == expected.keys()
        for name, content in expected.items():
            assert found[name] == content, name
