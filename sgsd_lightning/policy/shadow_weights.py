"""A second set of values for the trainable parameters of a model, laid out and sharded as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel


class ShadowWeights(nn.Module):
    """A second set of float32 values for a model's trainable parameters, with their shapes and sharding.

    Starts as a copy. Frozen parameters have no second value: they are the same for both.

    Args:
        model: Resharded, if it is sharded.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        reshard(model)
        for name, parameter in _trainable(model):
            copy = parameter.detach().float().clone()
            self.register_parameter(_key(name), nn.Parameter(copy, requires_grad=False))

    @contextmanager
    def exchanged_with(self, model: PreTrainedModel) -> Iterator[None]:
        """Within this, the model's trainable parameters hold these values; afterwards bit for bit their own again.

        Needs one further copy of the largest parameter, or of all of them where their dtype is not float32.
        """
        reshard(model)
        held = self._exchange(model)
        try:
            yield
        finally:
            reshard(model)
            self._take_back(model, held)

    @torch.no_grad()
    def move_towards(self, model: PreTrainedModel, weight: float) -> None:
        """shadow += weight * (model - shadow), in float32; weight 1 copies."""
        reshard(model)
        for name, parameter in _trainable(model):
            shadow = self._local_shadow(name)
            values = _local(parameter).to(shadow.dtype)
            # lerp at 1 is exact only up to rounding
            shadow.copy_(values) if weight == 1 else shadow.lerp_(values, weight)

    @torch.no_grad()
    def _exchange(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Put the shadow's values into the model; what cannot be kept in the shadow without rounding is returned."""
        held: dict[str, Tensor] = {}
        for name, parameter in _trainable(model):
            own, shadow = _local(parameter), self._local_shadow(name)
            values = own.clone()
            own.copy_(shadow)
            if own.dtype == shadow.dtype:
                shadow.copy_(values)
            else:
                held[name] = values
        # casts of the weights that autocast keeps would outlive the exchange
        torch.clear_autocast_cache()
        return held

    @torch.no_grad()
    def _take_back(self, model: PreTrainedModel, held: dict[str, Tensor]) -> None:
        for name, parameter in _trainable(model):
            own, shadow = _local(parameter), self._local_shadow(name)
            if name in held:
                own.copy_(held[name])
            else:
                values = own.clone()
                own.copy_(shadow)
                shadow.copy_(values)
        torch.clear_autocast_cache()

    def _local_shadow(self, name: str) -> Tensor:
        return _local(self.get_parameter(_key(name)))


def reshard(model: nn.Module) -> None:
    """Free gathered weights, so that a change of the shards is seen by the next forward pass; nothing without FSDP2.

    FSDP2 leaves the root's weights gathered after a forward pass without gradient.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _trainable(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _key(name: str) -> str:
    """Parameters cannot be registered under a name with a dot."""
    return name.replace(".", "/")


def _local(tensor: Tensor) -> Tensor:
    """This process's shard, sharing its memory; all of it without sharding."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
