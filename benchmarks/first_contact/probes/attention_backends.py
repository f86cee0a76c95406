"""Step 8: what a new shape costs torch's attention with cuDNN and without, and whether cuDNN's gradients are finite."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.first_contact.probes.record import Record

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128
NEW, SEEN = range(401, 409), [405] * 8
LENGTH_OF_THE_FAULT = 192
"""A multiple of 64 and not of 128, where gradients were NaN (pytorch #196678)."""


def measure(record: Record) -> None:
    for is_on in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(is_on)
        for is_masked in (False, True):
            record.at(f"cuDNN {'on' if is_on else 'off'}, {'with' if is_masked else 'without'} a mask")
            _milliseconds([300], is_masked)
            row = {"cudnn": is_on, "mask": is_masked, "new_shape_ms": _milliseconds(NEW, is_masked)}
            record.add("rows", row | {"seen_shape_ms": _milliseconds(SEEN, is_masked)})
    torch.backends.cuda.enable_cudnn_sdp(True)
    record.at("cuDNN's gradient under a mask")
    record.put(cudnn_gradient=_gradient_by_cudnn())


def _milliseconds(lengths: Iterable[int], is_masked: bool) -> float:
    """Per length, forward and backward."""
    _synchronize()
    start = time.perf_counter()
    count = 0
    for length in lengths:
        query, key = _states(length)
        _attention(query, key, _causal(length) if is_masked else None).sum().backward()
        count += 1
    _synchronize()
    return 1e3 * (time.perf_counter() - start) / count


def _synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _gradient_by_cudnn() -> str:
    """``finite``, ``not finite``, or why cuDNN does not take the call."""
    query, key = _states(LENGTH_OF_THE_FAULT)
    with torch.no_grad():
        key.copy_(-query[:, :: HEADS // KV_HEADS] * 10)  # log-sum-exp far below -88.7
    try:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            _attention(query, key, _causal(LENGTH_OF_THE_FAULT)).sum().backward()
    except RuntimeError as error:
        return str(error).splitlines()[0][:160]
    assert query.grad is not None
    return "finite" if bool(query.grad.isfinite().all()) else "not finite"


def _states(length: int) -> tuple[Tensor, Tensor]:
    query, key = (
        torch.randn(1, heads, length, HEAD_DIM, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
        for heads in (HEADS, KV_HEADS)
    )
    return query, key


def _causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=DEVICE).tril()


def _attention(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    return scaled_dot_product_attention(query, key, key, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
