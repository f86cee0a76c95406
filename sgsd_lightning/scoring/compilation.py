"""`torch.compile` of a policy's decoder layers, for scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_ATTRIBUTE = "_compiled_layer_calls"
_VARIANTS = 32


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile the decoder layers for ``score``, once for all layers and all lengths.

    Names and weights do not change. Generation is not compiled: with a growing cache every layer would be compiled
    separately, and for a cache of fixed size transformers has its own mechanism.

    Args:
        model: Adapted and set up for checkpointing already: a layer is compiled as it is when it first runs.
        backend: As for `torch.compile`.
    """
    # with and without gradient, with and without adapters, windowed layers and others: at 8 it would give up
    torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)
    calls = []
    for layer in model.get_decoder().layers:
        if getattr(layer, "gradient_checkpointing", False):
            _compile_within_checkpoint(layer, backend)
        else:
            calls.append((layer, torch.compile(layer._call_impl, dynamic=True, backend=backend)))
    # a module's own way to set attributes would register the layers a second time
    object.__setattr__(model, _ATTRIBUTE, calls)


@contextmanager
def compiled_layers(model: PreTrainedModel) -> Iterator[None]:
    """Run the layers compiled, if :func:`compile_layers` was called on the model."""
    calls: list[tuple[nn.Module, Callable[..., Any]]] = getattr(model, _ATTRIBUTE, [])
    for layer, call in calls:
        layer._compiled_call_impl = call
    try:
        yield
    finally:
        for layer, _ in calls:
            layer._compiled_call_impl = None


def _compile_within_checkpoint(layer: nn.Module, backend: str) -> None:
    """Compile inside the checkpoint, so that recomputation runs compiled; a checkpoint inside would break the graph."""
    checkpoint: Callable[..., Any] = vars(layer)["_gradient_checkpointing_func"]
    run = torch.compile(_run, dynamic=True, backend=backend)

    def compiled_checkpoint(function: Callable[..., Any], *args: Any) -> Any:
        return checkpoint(partial(run, function), *args)

    vars(layer)["_gradient_checkpointing_func"] = compiled_checkpoint


def _run(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
