"""Generation from sharded weights layer by layer: all processes run as many forward passes as the slowest one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from sgsd_lightning.distributed.gathered_weights import sharding_state_restored
from sgsd_lightning.distributed.processes import sum_over_processes


@contextmanager
def lockstep(model: PreTrainedModel) -> Iterator[None]:
    """Align the forward passes of an FSDP2 model over all processes; does nothing for other models.

    A process that has finished runs passes over a dummy token until all have. Weights are gathered a layer
    at a time, so that no process holds the whole model; in return a step takes as long as the slowest process's.
    All processes enter, also those with nothing to generate. An error within ends the others by their time limit.
    """
    is_sharded = isinstance(model, FSDPModule)
    if not is_sharded:
        yield
        return
    device = model.device

    def announce(*_: Any) -> None:
        sum_over_processes(1, device)

    with sharding_state_restored(model):
        # before FSDP2's own hook, which gathers the root's weights
        handle = model.register_forward_pre_hook(announce, prepend=True)
        try:
            yield
        finally:
            handle.remove()
        with torch.no_grad():
            while sum_over_processes(0, device) > 0:
                model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=device), use_cache=False)
