"""A table of rollouts and their teachers' polarity: one JSON line per rollout, a few rows for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from sgsd_lightning.files import reason
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types import JudgedRollout, StepRecord
from sgsd_lightning.types.arguments import require

PREDICTIONS = "predictions"
"""The table of `sgsd predict`."""
COLUMNS = ("problem_id", "completion", "reward", "outcome", "finish_reason", "teachers")


class RolloutTable(RunCallback):
    """Writes ``rollouts.jsonl`` (training), ``evaluation.jsonl`` and ``predictions.jsonl`` into the run folder.

    Args:
        every_n_steps: record the rollouts of every so many optimizer steps; 0 records none.
        num_rows: how many rollouts of a step become a table in TensorBoard and W&B; the files take all.
        num_token_rows: how many rollouts of a recorded micro-batch are written token by token, with every teacher's
            log-ratio, for the token view of `sgsd report`. A token takes about 15 bytes per teacher.
    """

    def __init__(self, every_n_steps: int = 10, num_rows: int = 8, num_token_rows: int = 2) -> None:
        sizes = {"every_n_steps": every_n_steps, "num_rows": num_rows, "num_token_rows": num_token_rows}
        for name, value in sizes.items():
            require(value >= 0, f"rollout_table.{name}", "be 0 (off) or more", value)
        self.every_n_steps = every_n_steps
        self.num_rows = num_rows
        self.num_token_rows = num_token_rows

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        if not self.every_n_steps or report.step % self.every_n_steps:
            return
        rows: list[dict[str, Any]] = []
        for step in report.learner_steps:
            learner = _learner(module, step.record.policy)
            of_batch = [{"step": report.step, **row} for row in training_rows(step.record)]
            for index, row in enumerate(of_batch[: self.num_token_rows]):
                add_tokens(row, step.record, index, learner)
            rows += of_batch
        _append(trainer, "rollouts", rows)
        if trainer.is_global_zero:
            self._log_table(trainer, "rollouts", rows[: self.num_rows], report.step)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predictions are those of one command: earlier ones, of however many processes, make way."""
        if trainer.is_global_zero:
            for path in Path(trainer.default_root_dir).glob(f"{PREDICTIONS}*.jsonl"):
                path.unlink()
        trainer.strategy.barrier("old predictions")

    def on_evaluated(
        self, trainer: Trainer, module: LightningModule, stage: str, judged: Sequence[JudgedRollout]
    ) -> None:
        rows = [rollout_row(entry) for entry in judged]
        if stage == "predict":
            _append(trainer, PREDICTIONS, rows)
        elif not trainer.sanity_checking:
            _append(trainer, "evaluation", [{"step": trainer.global_step, **row} for row in rows])

    def _log_table(self, trainer: Trainer, name: str, rows: list[dict[str, Any]], step: int) -> None:
        cells = [[_cell(row.get(column, "")) for column in COLUMNS] for row in rows]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(name, markdown_table(cells), step)
            elif isinstance(logger, WandbLogger):
                logger.log_table(name, columns=list(COLUMNS), data=cells, step=step)


def _learner(module: LightningModule, policy: str) -> Learner:
    assert isinstance(module, SelfDistillation)
    return module.learners[policy]


def training_rows(record: StepRecord) -> Iterator[dict[str, Any]]:
    """One row per rollout of a training step, with a list of its teachers."""
    for index, judged in enumerate(record.judged):
        teachers: list[dict[str, Any]] = [
            {"sources": list(context.source_ids), "weight": context.weight} for context in record.contexts[index]
        ]
        if record.stances:
            for teacher, stance in zip(teachers, record.stances[index], strict=True):
                teacher |= {
                    "stance_score": stance.stance_score,
                    "stance": stance.stance,
                    "polarity": stance.polarity,
                }
        yield {**rollout_row(judged), "teachers": teachers}


def add_tokens(row: dict[str, Any], record: StepRecord, index: int, learner: Learner) -> None:
    """To the row of the ``index``-th rollout, what was measured of each of its tokens; 0 where it did not count."""
    ids = record.judged[index].rollout.completion_ids
    mask = record.loss_mask[index, : len(ids)]
    row["tokens"] = [learner.tokenizer.decode([token_id]) for token_id in ids]
    row["loss_mask"] = mask.int().tolist()
    row["student_logprob"] = _rounded(record.student_logprob[index, : len(ids)])
    for k, (teacher, context) in enumerate(zip(row["teachers"], record.contexts[index], strict=True)):
        log_ratio = record.log_ratio[index, k, : len(ids)].where(mask, 0.0)
        gate = learner.objective.token_gate(log_ratio)
        teacher |= {"text": context.text, "log_ratio": _rounded(log_ratio)}
        teacher |= {} if gate is None else {"gate": _rounded(gate)}


def rollout_row(judged: JudgedRollout) -> dict[str, Any]:
    """What a person wants to know of a judged rollout."""
    rollout, verdict = judged.rollout, judged.verdict
    return {
        "problem_id": rollout.problem.problem_id,
        "problem": rollout.problem.text,
        "reference_answer": rollout.problem.answer,
        "completion": rollout.completion_text,
        "completion_tokens": len(rollout.completion_ids),
        "finish_reason": str(rollout.finish_reason),
        "sample_index": rollout.sample_index,
        "answer": verdict.answer,
        "reward": verdict.reward,
        "outcome": verdict.outcome,
    }


def markdown_table(cells: list[list[str]]) -> str:
    """A Markdown table under :data:`COLUMNS`; line breaks and bars inside cells are escaped."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in cells]
    return "\n".join(lines)


def _rounded(values: Tensor) -> list[float]:
    """Four digits, and finite, so that any JSON parser reads them."""
    return [round(value, 4) for value in values.nan_to_num(nan=0.0).clamp(-999.0, 999.0).tolist()]


def _cell(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f"{'+'.join(teacher['sources'])}: {teacher.get('polarity', 0):+d}" for teacher in value)


def _escape(cell: str) -> str:
    return cell.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", "<br>")


def _append(trainer: Trainer, name: str, rows: list[dict[str, Any]]) -> None:
    """Each process writes a file of its own, so that no line is torn."""
    suffix = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
    path = Path(trainer.default_root_dir) / f"{name}{suffix}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {reason(error)}") from error
