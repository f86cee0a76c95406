"""Generation from FSDP2 weights that are gathered once, so that no process waits for another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule


@contextmanager
def gathered_weights(model: nn.Module) -> Iterator[None]:
    """Gather an FSDP2 model, so that forward passes within need no other process; does nothing for other models.

    Entering gathers all weights and is a collective: every process enters, also one that has nothing to generate, and
    holds the whole model meanwhile, in the dtype that its forward passes compute in. Gradients are not
    allowed within. Leaving shards the weights again and restores whether each module reshards after its forward pass.
    """
    with sharding_state_restored(model) as modules:
        for module in modules:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
        yield


@contextmanager
def sharding_state_restored(model: nn.Module) -> Iterator[list[FSDPModule]]:
    """Yield a model's FSDP2 modules; afterwards restore their state, whatever ran without gradient.

    For other models the list is empty and nothing happens.
    """
    modules: list[FSDPModule] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    _initialise_roots(model)
    settings = [_Settings.of(module) for module in modules]
    try:
        yield modules
    finally:
        for module, before in zip(modules, settings, strict=True):
            module.reshard()
            before.restore()


def _initialise_roots(module: nn.Module) -> None:
    """Do what FSDP2 does in a first forward pass, which makes the root keep its weights unless set otherwise before."""
    if isinstance(module, FSDPModule):
        module._get_fsdp_state()._lazy_init()
        return
    for child in module.children():
        _initialise_roots(child)


@dataclass(frozen=True, slots=True)
class _Settings:
    """State of one FSDP2 module that generation changes. Torch has no public way to read or restore it."""

    state: Any
    is_automatic: bool | None
    meshes: list[Any]
    """Per group of parameters: where it is sharded to after a forward pass; None when it is not."""
    num_passes: list[int]
    """Per group: how many forward passes wait for their backward pass."""
    order_length: int

    @classmethod
    def of(cls, module: FSDPModule) -> _Settings:
        state = module._get_fsdp_state()
        groups = _parameter_groups(state)
        return cls(
            state=state,
            is_automatic=state._auto_reshard_after_forward,
            meshes=[group.post_forward_mesh_info for group in groups],
            num_passes=[len(group._post_forward_indices) for group in groups],
            order_length=len(state._comm_ctx.post_forward_order),
        )

    def restore(self) -> None:
        self.state._auto_reshard_after_forward = self.is_automatic
        # forward passes without gradient are recorded for a backward pass that does not come; torch's own reset
        # would drop gradients that are still to be reduced as well
        del self.state._comm_ctx.post_forward_order[self.order_length :]
        groups = _parameter_groups(self.state)
        for group, mesh, num_passes in zip(groups, self.meshes, self.num_passes, strict=True):
            group.post_forward_mesh_info = mesh
            del group._post_forward_indices[num_passes:]


def _parameter_groups(state: Any) -> list[Any]:
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    # before torch 2.12
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]
