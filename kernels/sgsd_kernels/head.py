"""The head seen one chunk at a time: its options, its products in float32, its logits and their derivative."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_kernels.reference import accumulation_dtype


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


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, accumulated and returned in float32 (float64 where a factor is float64).

    Factors of one half dtype are multiplied exactly: by the tensor cores on CUDA, elsewhere after a cast of both. A
    float32 product follows ``torch.get_float32_matmul_precision()``.
    """
    is_half = left.dtype in (torch.bfloat16, torch.float16) and left.dtype == right.dtype
    if is_half and _has_exact_half_product(left):
        return torch.mm(left, right, out_dtype=torch.float32)
    dtype = accumulation_dtype(left.dtype, right.dtype)
    return left.to(dtype) @ right.to(dtype)


def working_copy(factor: Tensor) -> Tensor:
    """``factor`` as `product` wants it many times over, so that it is not cast anew for each chunk."""
    return factor if _has_exact_half_product(factor) else factor.to(accumulation_dtype(factor.dtype))


def gradient_factor(gradient: Tensor, factor_dtype: torch.dtype) -> Tensor:
    """``gradient`` (float32) in the dtype in which it is multiplied by a factor of ``factor_dtype``.

    bfloat16 on CUDA, where that is the fast product and keeps the exponent; else unchanged (float16 would underflow).
    """
    if factor_dtype == torch.bfloat16 and _has_exact_half_product(gradient):
        return gradient.to(torch.bfloat16)
    return gradient


def _has_exact_half_product(tensor: Tensor) -> bool:
    """Whether this device multiplies half-precision factors into a float32 result."""
    return tensor.is_cuda and torch.version.cuda is not None


def apply_options_(raw: Tensor, options: HeadOptions) -> Tensor:
    """Softcap and temperature on a chunk of raw logits, in place."""
    if options.softcap is not None:
        raw.div_(options.softcap).tanh_().mul_(options.softcap)
    return raw if options.temperature == 1.0 else raw.div_(options.temperature)


def undo_options_(gradient: Tensor, logits: Tensor, options: HeadOptions) -> Tensor:
    """The gradient of the raw logits from that of the final ``logits``, in place in ``gradient``."""
    if options.temperature != 1.0:
        gradient.div_(options.temperature)
    if options.softcap is not None:
        tanh = logits.mul(options.temperature / options.softcap)
        gradient.mul_(tanh.square_().neg_().add_(1.0))
    return gradient


def spans(length: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most ``step`` that cover ``range(length)``."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _is_dtensor(tensor: Tensor) -> bool:
    module = sys.modules.get("torch.distributed.tensor")  # nobody can hold one before it is imported
    return module is not None and isinstance(tensor, module.DTensor)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
