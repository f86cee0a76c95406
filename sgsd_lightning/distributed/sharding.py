"""Shards a policy's model over processes by FSDP2: one group per decoder layer, the rest with the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from sgsd_lightning.distributed.processes import largest_over_processes

ComputeDtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ShardingSettings:
    """How weights are gathered for computing and gradients reduced."""

    param_dtype: ComputeDtype | None = None
    """The dtype of gathered weights and of the computation; None keeps the weights' own dtype."""
    reduce_dtype: ComputeDtype = "float32"
    """The dtype in which gradients are summed over processes."""
    reshard_after_forward: bool = True
    """Free a layer's gathered weights after its forward pass; off keeps them for the backward pass, which is faster
    and takes the memory of a whole model."""


def shard_policy(model: PreTrainedModel, mesh: DeviceMesh, settings: ShardingSettings) -> None:
    """Shard in place. The model keeps its class, its names and its methods ``score`` and ``generate``.

    Embedding, final norm and head stay with the root, so that a tied weight is gathered once, in the forward pass that
    reads it as a head and in its backward pass.

    Args:
        model: On the CPU or on the mesh's device; with or without adapters.
        mesh: One dimension.
        settings: Dtypes and resharding.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if settings.param_dtype is None else getattr(torch, settings.param_dtype),
        reduce_dtype=getattr(torch, settings.reduce_dtype),
        # scores and weights that are passed along must stay in float32
        cast_forward_inputs=False,
    )
    for layer in model.get_decoder().layers:
        fully_shard(
            layer,
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=settings.reshard_after_forward,
        )
    fully_shard(model, mesh=mesh, mp_policy=policy)


def num_missing_passes(model: PreTrainedModel, num_passes: int, device: torch.device) -> int:
    """Return how many forward passes this process must add so that all run equally many; 0 if not sharded.

    Every pass of a sharded model gathers weights from all processes, so that one which runs fewer leaves the others
    waiting. A collective for sharded models.
    """
    if not isinstance(model, FSDPModule):
        return 0
    return int(largest_over_processes(num_passes, device)) - num_passes


def gathered_dtype(model: PreTrainedModel) -> torch.dtype | None:
    """Return the dtype that FSDP2 casts gathered weights to; None if it does not cast or the model is not sharded."""
    if not isinstance(model, FSDPModule):
        return None
    policy: MixedPrecisionPolicy = model._get_fsdp_state()._mp_policy
    return policy.param_dtype
