"""Watches for collapse while training: warns, stops the run, or takes it back to its best checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from sgsd_lightning.callbacks.best_checkpoint import BestCheckpoint
from sgsd_lightning.callbacks.checkpoint import RunCheckpoint
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.metrics.collapse import AVG_AT_K, CollapseBounds, CollapseWatch
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.policy.shadow_weights import reshard
from sgsd_lightning.training.fsdp2 import FSDP2Strategy
from sgsd_lightning.training.run_callback import RunCallback, StepPhase
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types.arguments import require_choice

log = logging.getLogger(__name__)

Action = Literal["warn", "stop", "rollback"]
HOW_TO_CONTINUE = "--collapse_guard.action=warn continues all the same"


class CollapseGuard(RunCallback):
    """Compares what every optimizer step and every evaluation measures with the run's own start.

    Numbers are those of the very step, of all processes, so that every process decides the same. Each rule speaks
    once, in one sentence; ``collapse/num_tripped`` logs how many have. `CollapseBounds` has the reasons for the bounds;
    null turns a rule off.

    ``stop`` ends the run after the step, evaluates once more as Lightning does whenever a run is stopped, and names
    the best checkpoint. A run that resumes its ``last.ckpt`` under ``stop`` stops at once.

    ``rollback`` does the same, then takes the policy, its teacher's weights, the optimizer and the contexts (the skill
    bank) back to ``best.ckpt``: what is tested after `fit` in the same process is the best policy. ``last.ckpt`` is
    then a copy of ``best.ckpt``, and a run that resumes it does so from that earlier step, into the same collapse
    unless something is changed. ``step-N.ckpt`` stays, for a look at what went wrong. Where nothing was evaluated
    before, the evaluation at the stop is the best that there is, and nothing is won.

    Args:
        action: what to do when a rule trips.
        length_frac: trips when accepted and rejected completions both fall below this share of their length at the
            start.
        entropy_frac: when the policy's entropy falls below this share of that at the start.
        repetition_frac: when more than this share of a completion's 4-grams are repetitions.
        truncated_frac: when more than this share of completions is cut off.
        active_rollout_frac: when fewer than this share of rollouts has a teacher that is not neutral.
        truncated_limit: when more than this share of completions is cut off in each of ``limit_steps`` steps in a row,
            whatever the run began with.
        no_signal_below: when no rollout moves the policy for ``limit_steps`` steps in a row while fewer than this share
            is accepted.
        avg_at_k_drop: when val/avg@k is further than this below its best.
        pass_at_k_drop: when val/pass@k is further than this below its first.
        baseline_steps: how many optimizer steps are the start.
        window: over how many of the last optimizer steps the mean is taken that is compared.
        limit_steps: see ``truncated_limit`` and ``no_signal_below``.
    """

    def __init__(
        self,
        action: Action = "warn",
        length_frac: float | None = CollapseBounds.length_frac,
        entropy_frac: float | None = CollapseBounds.entropy_frac,
        repetition_frac: float | None = CollapseBounds.repetition_frac,
        truncated_frac: float | None = CollapseBounds.truncated_frac,
        active_rollout_frac: float | None = CollapseBounds.active_rollout_frac,
        truncated_limit: float | None = CollapseBounds.truncated_limit,
        no_signal_below: float | None = CollapseBounds.no_signal_below,
        avg_at_k_drop: float | None = CollapseBounds.avg_at_k_drop,
        pass_at_k_drop: float | None = CollapseBounds.pass_at_k_drop,
        baseline_steps: int = CollapseBounds.baseline_steps,
        window: int = CollapseBounds.window,
        limit_steps: int = CollapseBounds.limit_steps,
    ) -> None:
        require_choice(Action, "collapse_guard.action", action)
        self.action = action
        self.watch = CollapseWatch(
            CollapseBounds(
                length_frac=length_frac,
                entropy_frac=entropy_frac,
                repetition_frac=repetition_frac,
                truncated_frac=truncated_frac,
                active_rollout_frac=active_rollout_frac,
                truncated_limit=truncated_limit,
                no_signal_below=no_signal_below,
                avg_at_k_drop=avg_at_k_drop,
                pass_at_k_drop=pass_at_k_drop,
                baseline_steps=baseline_steps,
                window=window,
                limit_steps=limit_steps,
            )
        )
        self._is_within_step = False

    phase = StepPhase.GUARD

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse in time what cannot be rolled back.

        Raises:
            ValueError: where there is no best checkpoint, or a strategy that cannot take one up in mid-run.
        """
        if stage != "fit" or self.action != "rollback":
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy | FSDP2Strategy):
            raise ValueError(
                "collapse_guard.action rollback takes up a checkpoint within a run, which one device, ddp and fsdp2 "
                f"can do, not {type(trainer.strategy).__name__}; take collapse_guard.action: stop"
            )
        best = _best(trainer)
        if best is None or best.metric is None or not _validates(trainer):
            raise ValueError(
                "collapse_guard.action rollback goes back to the best checkpoint, which takes validation problems "
                "(data.init_args.validation, trainer.limit_val_batches) and best_checkpoint.metric; set them, or take "
                "collapse_guard.action: stop"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up what a checkpoint cannot know: the evaluation after it; and stop a run that had been stopped."""
        best = _best(trainer)
        if best is not None and best.score is not None and best.metric == AVG_AT_K and best.step <= trainer.global_step:
            self.watch.raise_best(best.score)
        if self._is_to_stop and trainer.is_global_zero:
            log.warning("%s; %s", "; ".join(self.watch.tripped.values()), HOW_TO_CONTINUE)
        self._stop_if_due(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._is_within_step = True

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        """Before the step's checkpoint is written, so that it holds what was made of the step."""
        self._is_within_step = False
        _warn(trainer, self.watch.observe_step(report.step, report.metrics))
        module.log("collapse/num_tripped", float(len(self.watch.tripped)), batch_size=1)
        self._stop_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In the middle of an optimizer step the run is not stopped before the step is over."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        _warn(trainer, self.watch.observe_evaluation(trainer.global_step, metrics))
        if not self._is_within_step:
            self._stop_if_due(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is left of a stopped run, and go back where that was asked for."""
        if not self._is_to_stop:
            return
        assert isinstance(pl_module, SelfDistillation)
        best = _best(trainer)
        description = best.description() if best is not None else None
        if description is None:
            outcome = "there is no best checkpoint, since nothing was evaluated before"
        elif self.action == "rollback":
            assert best is not None
            self._roll_back(trainer, pl_module, Path(best.best_model_path))
            outcome = f"rolled back to {description}, of which last.ckpt is now a copy"
        else:
            outcome = f"the best checkpoint is {description}"
        if trainer.is_global_zero:
            log.warning("collapse_guard stopped the run after step %d; %s", trainer.global_step, outcome)

    def state_dict(self) -> dict[str, Any]:
        return self.watch.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.watch.load_state_dict(state_dict)

    @property
    def _is_to_stop(self) -> bool:
        return self.action != "warn" and bool(self.watch.tripped)

    def _stop_if_due(self, trainer: Trainer) -> None:
        trainer.should_stop = trainer.should_stop or self._is_to_stop

    def _roll_back(self, trainer: Trainer, module: SelfDistillation, path: Path) -> None:
        """On every process. Loops and schedules stay as they are in this process: it trains no more."""
        strategy = trainer.strategy
        # FSDP2 leaves the root's weights gathered after an evaluation
        reshard(module.model)
        checkpoint = strategy.load_checkpoint(path)
        module.on_load_checkpoint(checkpoint)
        strategy.load_model_state_dict(checkpoint, strict=module.strict_loading)
        strategy.load_optimizer_state_dict(checkpoint)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.replace_last(trainer, path)


def _warn(trainer: Trainer, sentences: list[str]) -> None:
    if trainer.is_global_zero:
        for sentence in sentences:
            log.warning(sentence)


def _best(trainer: Trainer) -> BestCheckpoint | None:
    return next((c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), None)


def _validates(trainer: Trainer) -> bool:
    data = getattr(trainer, "datamodule", None)
    has_problems = not isinstance(data, ProblemDataModule) or bool(data.problems.get("validation"))
    return trainer.enable_validation and has_problems
