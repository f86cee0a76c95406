"""Optimizer and scheduler of a run, with every number checked before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer, SparseAdam
from torch.optim.lr_scheduler import ReduceLROnPlateau

_NOT_NEGATIVE = ("lr", "weight_decay", "eps", "momentum", "betas", "lr_decay", "alpha", "dampening")


def configured(
    optimizer: Callable[[Sequence[nn.Parameter]], Optimizer],
    scheduler: Callable[[Optimizer], Any] | None,
    parameters: Sequence[nn.Parameter],
) -> Any:
    """What `LightningModule.configure_optimizers` returns; the scheduler is advanced every optimizer step.

    Raises:
        ValueError: for settings that either refuses, numbers that are not finite, negative ones of those that cannot
            be, an optimizer that cannot step here, or a scheduler that waits for a metric.
    """
    with _named("model.optimizer"):
        built = optimizer(parameters)
    _check_kind(built)
    check_numbers(built)
    if scheduler is None:
        return built
    with _named("model.lr_scheduler"):
        schedule = scheduler(built)
    if isinstance(schedule, ReduceLROnPlateau):
        raise ValueError(
            "model.lr_scheduler: ReduceLROnPlateau waits for a metric, and schedulers are advanced every optimizer "
            "step; take one that depends on the step alone, such as torch.optim.lr_scheduler.CosineAnnealingLR"
        )
    check_numbers(built, "model.lr_scheduler")
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_numbers(optimizer: Optimizer, where: str = "model.optimizer") -> None:
    """Refuse numbers that are not finite, and negative ones where only 0 or more makes sense.

    Raises:
        ValueError: naming the first that is wrong.
    """
    for group in optimizer.param_groups:
        for name, value in group.items():
            for number in value if isinstance(value, list | tuple) and name != "params" else (value,):
                if isinstance(number, bool) or not isinstance(number, int | float):
                    continue
                is_negative = number < 0 and name in _NOT_NEGATIVE
                if not math.isfinite(number) or is_negative:
                    rule = "finite and not negative" if name in _NOT_NEGATIVE else "finite"
                    raise ValueError(f"{where}: {name} of {type(optimizer).__name__} must be {rule}; got {number}")


def _check_kind(optimizer: Optimizer) -> None:
    kind = type(optimizer).__name__
    if isinstance(optimizer, LBFGS):
        raise ValueError(f"model.optimizer: {kind} computes the loss several times per step, of one batch; take AdamW")
    if isinstance(optimizer, SparseAdam):
        raise ValueError(f"model.optimizer: {kind} takes sparse gradients alone, and these are dense; take AdamW")


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: {error}") from error
