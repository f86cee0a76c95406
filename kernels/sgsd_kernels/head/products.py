"""One chunk of the head: products accumulated in float32, softcap and temperature, and the way back."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sgsd_kernels.head.options import HeadOptions


def accumulation_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """float64 where one of ``dtypes`` is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


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
