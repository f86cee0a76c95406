"""What happens when a loss or a gradient is not a finite number."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from sgsd_lightning.distributed.processes import gather_from_processes, largest_over_processes
from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types.arguments import require_at_least, require_choice

log = logging.getLogger(__name__)

Action = Literal["stop", "skip"]
NUM_NAMED_PROBLEMS = 8


class NonfiniteLossError(FloatingPointError):
    """A loss or gradient was not finite, and the setting says to stop."""


class NonfiniteLoss(RunCallback):
    """Looks at the loss of every micro-batch and at the gradients before every optimizer step, over all processes.

    Logs ``objective/skipped_steps``, the number of optimizer steps that were left out so far.

    Args:
        action: ``stop`` ends the run before the weights are touched; ``skip`` leaves weights and optimizer state as
            they are, and counts.
        max_consecutive: after so many skipped steps in a row the run ends all the same.
    """

    def __init__(self, action: Action = "stop", max_consecutive: int = 5) -> None:
        require_choice(Action, "nonfinite_loss.action", action)
        require_at_least(1, "nonfinite_loss.max_consecutive", max_consecutive)
        self.action = action
        self.max_consecutive = max_consecutive
        self.num_skipped = 0
        self.num_consecutive = 0
        self._problems: list[str] = []
        self._losses: list[tuple[Tensor, list[str]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._problems = list(dict.fromkeys(problem.problem_id for problem in batch))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss on its device: nothing waits for it before the step."""
        self._losses.append((loss.detach(), self._problems))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        losses, self._losses = self._losses, []
        finite = torch.stack([loss for loss, _ in losses]).isfinite().tolist()
        unfit = [names for (_, names), is_finite in zip(losses, finite, strict=True) if not is_finite]
        found = not all(finite) or (_is_unscaled(trainer) and not _finite_gradients(optimizer))
        if not largest_over_processes(float(found), pl_module.device):
            self.num_consecutive = 0
            return
        self.num_consecutive += 1
        problems = sorted({name for batches in gather_from_processes(unfit) for names in batches for name in names})
        what = _description(trainer.global_step + 1, problems)
        if self.action == "stop":
            raise NonfiniteLossError(f"{what}; it did not touch the weights (nonfinite_loss.action: skip continues)")
        if self.num_consecutive > self.max_consecutive:
            raise NonfiniteLossError(f"{what}, as were the {self.max_consecutive} steps before, which were skipped")
        self.num_skipped += 1
        log.warning("%s; this step is skipped", what)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        module.log("objective/skipped_steps", float(self.num_skipped), batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        return {"num_skipped": self.num_skipped, "num_consecutive": self.num_consecutive}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped = state_dict["num_skipped"]
        self.num_consecutive = state_dict["num_consecutive"]


def _description(step: int, problems: list[str]) -> str:
    if not problems:
        return f"the gradient of step {step} is not finite, while its loss is"
    more = f" and {len(problems) - NUM_NAMED_PROBLEMS} more" if len(problems) > NUM_NAMED_PROBLEMS else ""
    return f"the loss of step {step} is not finite, on problems {', '.join(problems[:NUM_NAMED_PROBLEMS])}{more}"


def _is_unscaled(trainer: Trainer) -> bool:
    """With a float16 scaler infinite gradients are routine, and the scaler skips those steps itself."""
    return getattr(trainer.precision_plugin, "scaler", None) is None


def _finite_gradients(optimizer: Optimizer) -> bool:
    """Of this process's shards; one transfer from the device."""
    gradients = [
        parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None and not parameter.grad.is_sparse
    ]
    gradients = [gradient for gradient in gradients if gradient.numel()]
    if not gradients:
        return True
    # the largest magnitude is finite exactly if all are: a NaN wins every comparison of a norm
    largest = torch._foreach_norm(gradients, ord=float("inf"))
    return bool(torch.stack([value.float() for value in largest]).isfinite().all())
