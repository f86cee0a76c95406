"""Measurements that combine exactly over micro-batches and processes of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sgsd_lightning.distributed.processes import gather_from_processes

Number = float | Tensor


class Mean(NamedTuple):
    """An average, as the sum and the number of what is averaged; 0 of nothing is 0."""

    total: Number
    num: Number

    @property
    def value(self) -> Number:
        """The average."""
        if isinstance(self.total, Tensor) or isinstance(self.num, Tensor):
            num = torch.as_tensor(self.num)
            return torch.where(num > 0, self.total / num.clamp(min=1e-30), 0.0)
        return self.total / self.num if self.num else 0.0


class Largest(NamedTuple):
    """The largest of what was measured; 0 of nothing."""

    value: Number


class Total(NamedTuple):
    """A sum of what was measured."""

    value: Number


Measurement = Mean | Largest | Total


def mean_of(values: Sequence[float]) -> Mean:
    """Average numbers."""
    return Mean(float(sum(values)), float(len(values)))


def mean_where(values: Tensor, where: Tensor) -> Mean:
    """Average the elements where the mask is True, without a device synchronisation."""
    return Mean(torch.where(where, values.detach().float(), 0.0).sum(), where.sum())


def weighted(value: Number, weight: float) -> Mean:
    """Make a `Mean` from an average of ``weight`` things."""
    return Mean(value * weight, weight)


def combine(window: Sequence[Mapping[str, Measurement]]) -> dict[str, float]:
    """Combine the measurements of several micro-batches of all processes; the result is the same on every process.

    A collective: every process must call it. Names may differ between processes.
    """
    gathered = gather_from_processes(_merge_all([_as_floats(measurements) for measurements in window]))
    return {name: float(measurement.value) for name, measurement in _merge_all(gathered).items()}


def _merge_all(parts: Sequence[Mapping[str, Measurement]]) -> dict[str, Measurement]:
    merged: dict[str, Measurement] = {}
    for part in parts:
        for name, measurement in part.items():
            merged[name] = _merge_pair(merged[name], measurement) if name in merged else measurement
    return merged


def _merge_pair(first: Measurement, second: Measurement) -> Measurement:
    if isinstance(first, Mean) and isinstance(second, Mean):
        return Mean(first.total + second.total, first.num + second.num)
    if isinstance(first, Largest) and isinstance(second, Largest):
        return Largest(max(first.value, second.value))
    if isinstance(first, Total) and isinstance(second, Total):
        return Total(first.value + second.value)
    raise TypeError(f"{type(first).__name__} and {type(second).__name__} of one name cannot be put together")


def _as_floats(measurements: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Move all numbers to the CPU in one transfer."""
    numbers = [number for measurement in measurements.values() for number in measurement]
    tensors = [number.detach().double() for number in numbers if isinstance(number, Tensor)]
    moved = iter(torch.stack(tensors).tolist()) if tensors else iter(())
    floats = iter([next(moved) if isinstance(number, Tensor) else float(number) for number in numbers])
    return {name: type(value)(*(next(floats) for _ in value)) for name, value in measurements.items()}
