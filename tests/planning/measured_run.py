"""Trains two steps in a process of its own; prints its largest resident memory and what was planned, as JSON."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.data.sources import ProblemSource
from sgsd_lightning.planning.memory import plan_memory
from sgsd_lightning.planning.model_shape import model_shape
from sgsd_lightning.planning.run_settings import RunSettings
from sgsd_lightning.policy import EmaTeacher, LoraSettings
from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types import JudgedRollout, Problem, SamplingSettings
from tests.support.tiny import PROBLEMS, NumberedContexts, tiny_module, tiny_policy

SIZES = {"hidden_size": 512, "num_layers": 8, "num_heads": 8, "num_kv_heads": 4, "intermediate_size": 1536}
NEW_TOKENS, NUM_PROBLEMS = 150, 4


class _Problems(ProblemSource):
    def load(self) -> list[Problem]:
        return list(PROBLEMS)


class _LastStep(RunCallback):
    """Keeps the rollouts of the last step's last micro-batch."""

    judged: Sequence[JudgedRollout] = ()

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self.judged = report.learner_steps[-1].record.judged


def main(case: str) -> None:
    """``nothing`` is a model of no size; ``full``, ``lora`` and ``ema`` (recomputed) have 27 million parameters."""
    policy: dict[str, Any] = {} if case == "nothing" else dict(SIZES)
    policy["gradient_checkpointing"] = case == "ema"
    lora = LoraSettings(rank=16) if case == "lora" else None
    new_tokens = 12 if case == "nothing" else NEW_TOKENS
    module = tiny_module(
        policy=tiny_policy(lora, **policy),
        contexts=NumberedContexts(4),
        sampling=SamplingSettings(max_new_tokens=new_tokens),
        teacher_weights=EmaTeacher() if case == "ema" else None,
        teacher_tokens_per_forward=1024,
    )
    seen = _LastStep()
    trainer = Trainer(
        callbacks=[seen],
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=ProblemDataModule(train=_Problems(), batch_size=NUM_PROBLEMS))
    rollouts = [entry.rollout for entry in seen.judged]
    prompt_tokens = len(rollouts[0].prompt_ids)
    run = RunSettings(
        shape=model_shape(module.model),
        accelerator="cpu",
        gradient_checkpointing=case == "ema",
        teacher="ema" if case == "ema" else "live",
        teacher_tokens_per_forward=1024,
        problems_per_batch=NUM_PROBLEMS,
        num_contexts=4,
        prompt_tokens=prompt_tokens,
        teacher_prompt_tokens=2 * prompt_tokens,
        completion_tokens=sum(len(rollout.completion_ids) for rollout in rollouts) // len(rollouts),
    )
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"resident": resident, "planned": plan_memory(run).training_peak}))


if __name__ == "__main__":
    main(sys.argv[1])
