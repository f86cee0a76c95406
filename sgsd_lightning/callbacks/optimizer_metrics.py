"""The learning rate and the gradient's norm of every optimizer step."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from sgsd_lightning.distributed.processes import sum_over_processes
from sgsd_lightning.training.run_callback import RunCallback
from sgsd_lightning.training.step_report import StepReport


class OptimizerMetrics(RunCallback):
    """Logs, once per optimizer step:

    ``optimizer/lr``, the learning rate that the step was taken with; of further groups of parameters
    ``optimizer/lr_1`` and so on. ``optimizer/grad_norm``, the Euclidean norm of the whole gradient before clipping,
    over all processes; 0 for a step that was skipped.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure while the gradient is whole: it is clipped next."""
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._metrics = {f"optimizer/lr_{index}" if index else "optimizer/lr": rate for index, rate in enumerate(rates)}
        # torch's own fsdp leaves each process plain tensors of its shard
        is_sharded = isinstance(trainer.strategy, FSDPStrategy)
        self._metrics["optimizer/grad_norm"] = gradient_norm(optimizer, pl_module.device, is_sharded=is_sharded)

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        for name, value in self._metrics.items():
            module.log(name, value, batch_size=1)


def gradient_norm(optimizer: Optimizer, device: torch.device, *, is_sharded: bool = False) -> float:
    """Compute the Euclidean norm of all gradients; those that processes hold parts of count once. A collective.

    Args:
        optimizer: whose parameters' gradients.
        device: on which processes sum up.
        is_sharded: whether plain tensors too are this process's part; DTensors say it of themselves.
    """
    whole: list[Tensor] = []
    parts: list[Tensor] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                is_part = any(placement.is_shard() for placement in gradient.placements)
                (parts if is_part else whole).append(gradient.to_local())
            elif gradient is not None:
                (parts if is_sharded else whole).append(gradient)
    return math.sqrt(_squares(whole) + sum_over_processes(_squares(parts), device))


def _squares(gradients: list[Tensor]) -> float:
    """Sum the squares; one transfer from the device."""
    values = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norms = [torch.linalg.vector_norm(value.detach(), dtype=torch.float32) for value in values]
    return float(torch.stack(norms).double().square().sum()) if norms else 0.0
