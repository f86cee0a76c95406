"""Collectives over the processes of a run: numbers and small objects, never tensors of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def num_processes() -> int:
    """Return the number of processes; 1 without a process group."""
    return distributed.get_world_size() if is_distributed() else 1


def is_distributed() -> bool:
    """Whether this process belongs to a group."""
    return distributed.is_available() and distributed.is_initialized()


def process_index() -> int:
    """Return the rank of this process; 0 without a process group."""
    return distributed.get_rank() if is_distributed() else 0


def sum_over_processes(value: float, device: torch.device) -> float:
    """Sum every process's value. All processes must call this, in the same order among their collectives."""
    return _reduced(value, device, distributed.ReduceOp.SUM) if num_processes() > 1 else value


def largest_over_processes(value: float, device: torch.device) -> float:
    """Return the largest of every process's value. All processes must call this."""
    return _reduced(value, device, distributed.ReduceOp.MAX) if num_processes() > 1 else value


def gather_from_processes(value: Any) -> list[Any]:
    """Return every process's value by rank, on every process. Values are pickled: keep them small."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


def broadcast_from_first(value: Any) -> Any:
    """Return the first process's value on every process; the others' values are ignored. Values are pickled."""
    if num_processes() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def _reduced(value: float, device: torch.device, operation: Any) -> float:
    tensor = torch.tensor(float(value), dtype=torch.float64, device=device)
    distributed.all_reduce(tensor, operation)
    return tensor.item()
