"""What the processes of a run tell one another: numbers and small objects, never tensors of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def num_processes() -> int:
    """1 where no process group was set up."""
    return distributed.get_world_size() if is_distributed() else 1


def is_distributed() -> bool:
    """Whether this process belongs to a group."""
    return distributed.is_available() and distributed.is_initialized()


def process_index() -> int:
    """The rank of this process; 0 where no process group was set up."""
    return distributed.get_rank() if is_distributed() else 0


def sum_over_processes(value: float, device: torch.device) -> float:
    """The sum of every process's value. All processes must call this, in the same order among their collectives."""
    return _reduced(value, device, distributed.ReduceOp.SUM) if num_processes() > 1 else value


def largest_over_processes(value: float, device: torch.device) -> float:
    """The largest of every process's value. All processes must call this."""
    return _reduced(value, device, distributed.ReduceOp.MAX) if num_processes() > 1 else value


def gather_from_processes(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks, on every process. Values are pickled: keep them small."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


def broadcast_from_first(value: Any) -> Any:
    """The first process's value, on every process; what the others pass is ignored. Values are pickled."""
    if num_processes() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def _reduced(value: float, device: torch.device, operation: Any) -> float:
    tensor = torch.tensor(float(value), dtype=torch.float64, device=device)
    distributed.all_reduce(tensor, operation)
    return tensor.item()
