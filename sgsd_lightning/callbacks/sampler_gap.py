"""Raises an alarm when sampler and scorer disagree about the probabilities of the same tokens."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.distributed.sharding import gathered_dtype
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types.arguments import require, require_choice

log = logging.getLogger(__name__)

Action = Literal["warn", "stop"]
METRIC = "rollout/sampler_gap_mean"
FLOAT32_BOUND = 0.01
"""Nats. Rounding alone gives 2e-7 to 2e-6 in float32; the rest is room for GPUs that multiply in TF32."""
HALF_PRECISION_BOUND = 0.1
"""Nats. The sampler reads logits rounded to the model's dtype, the scorer does not: bfloat16 keeps logits between 16
and 32 to the nearest eighth, off by 0.03 on average, and 0.02 was measured on random models of that spread."""


class SamplerGapError(RuntimeError):
    """The gap was above its bound, and the setting says to stop."""


class SamplerGapAlarm(RunCallback):
    """Compares ``rollout/sampler_gap_mean`` with a bound after every optimizer step.

    Args:
        max_mean_gap: the largest mean of |sampler's - scorer's log-probability| of a step's tokens, in nats; None
            takes 0.01 where the policy computes in float32 and 0.1 where it computes in half precision.
        action: ``warn`` says so once each time the bound is crossed; ``stop`` ends the run before the next step's
            rollouts. The last step of a run only ever warns.
    """

    def __init__(self, max_mean_gap: float | None = None, action: Action = "warn") -> None:
        is_bound = max_mean_gap is None or max_mean_gap > 0
        require(is_bound, "sampler_gap.max_mean_gap", "be above 0 nats, or null", max_mean_gap)
        require_choice(Action, "sampler_gap.action", action)
        self.max_mean_gap = max_mean_gap
        self.action = action
        self._gap: float | None = None
        self._is_above = False

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        # reused rollouts measure no gap
        self._gap = report.metrics.get(METRIC)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Not within the step, whose checkpoint an error would cost."""
        self._check(trainer, pl_module, self.action)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # there is nothing left to stop, and an error would cost the last checkpoint
        self._check(trainer, pl_module, "warn")

    def _check(self, trainer: Trainer, pl_module: LightningModule, action: Action) -> None:
        assert isinstance(pl_module, SelfDistillation)
        gap, self._gap = self._gap, None  # the same on every process
        if gap is None:
            return
        bound = self.max_mean_gap if self.max_mean_gap is not None else default_bound(trainer, pl_module)
        was_above, self._is_above = self._is_above, not gap <= bound
        if not self._is_above:
            return
        message = (
            f"{METRIC} is {gap:.3g} nats after step {trainer.global_step}, above the bound of {bound:g}: sampler and "
            "scorer disagree about the same tokens, so that rollouts are not the policy's own; look for stale weights "
            "in the rollout engine, another dtype or attention in one of the two, or prompts that one of them changes, "
            "and raise sampler_gap.max_mean_gap only if the policy's dtype explains it"
        )
        if action == "stop":
            raise SamplerGapError(message)
        if not was_above:
            log.warning(message)


def default_bound(trainer: Trainer, module: SelfDistillation) -> float:
    """The bound in nats for what the policy computes in."""
    dtypes = {parameter.dtype for parameter in module.model.parameters()}
    dtypes.add(gathered_dtype(module.model) or torch.float32)
    is_float32 = dtypes == {torch.float32} and not str(trainer.precision).startswith(("16", "bf16"))
    return FLOAT32_BOUND if is_float32 else HALF_PRECISION_BOUND
