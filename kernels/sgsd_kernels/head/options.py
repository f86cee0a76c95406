"""The options of a head, and what is refused as one."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What happens between the head's product and the distribution, in this order: softcap, temperature, limit."""

    temperature: float = 1.0
    """Logits are divided by this; above 0."""
    softcap: float | None = None
    """Logits become ``softcap * tanh(logits / softcap)``; above 0, None is off."""
    vocab_limit: int | None = None
    """Columns from here on (a padded head's) do not exist; at least 1, None keeps all."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0; got {self.temperature}")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"softcap must be above 0, or None to switch it off; got {self.softcap}")
        if self.vocab_limit is not None and self.vocab_limit < 1:
            raise ValueError(f"vocab_limit must be at least 1, or None to keep every column; got {self.vocab_limit}")

    def vocab_size(self, weight: Tensor) -> int:
        """How many columns the distribution has under the head ``weight`` [V, D]."""
        return weight.shape[0] if self.vocab_limit is None else min(self.vocab_limit, weight.shape[0])


def check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse what no implementation can read: wrong shapes, integers, sharded tensors.

    Raises:
        ValueError: a shape or dtype that does not fit.
        TypeError: a DTensor.
    """
    for name, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is not None and _is_dtensor(tensor):
            raise TypeError(
                f"{name} is a DTensor, which the head cannot read; call it inside the root module's forward, where "
                "FSDP has gathered the weight, or pass `full_tensor()` of it"
            )
    if weight.dim() == 1 or weight.numel() == 0:
        raise ValueError(
            f"weight must be a whole head [V, D]; got {_shape(weight)}, which is what a sharded parameter looks like "
            "outside the forward of the module that owns it: call the head inside that forward"
        )
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be [N, D] and weight [V, D] with the same D; got {_shape(hidden)} and {_shape(weight)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [V] with the weight's V = {weight.shape[0]}; got {_shape(bias)}")
    if not (hidden.is_floating_point() and weight.is_floating_point()):
        raise ValueError(f"hidden and weight must have floating dtypes; got {hidden.dtype} and {weight.dtype}")


def check_targets(targets: Tensor, num_rows: int, vocab_size: int, ignore_index: int) -> None:
    """Refuse targets of the wrong shape and, on the CPU, out of range (elsewhere the check would cost a sync).

    Raises:
        ValueError: the shape is not [num_rows], or an id is neither ``ignore_index`` nor in [0, vocab_size).
    """
    if targets.shape != (num_rows,):
        raise ValueError(f"targets must be [N] with hidden's N = {num_rows}; got {_shape(targets)}")
    if targets.device.type != "cpu":
        return
    is_bad = ((targets < 0) | (targets >= vocab_size)) & (targets != ignore_index)
    if is_bad.any():
        raise ValueError(
            f"targets must be token ids in [0, {vocab_size}) or ignore_index = {ignore_index}; "
            f"got {targets[is_bad][0].item()}"
        )


def _is_dtensor(tensor: Tensor) -> bool:
    module = sys.modules.get("torch.distributed.tensor")  # nobody can hold one before it is imported
    return module is not None and isinstance(tensor, module.DTensor)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
