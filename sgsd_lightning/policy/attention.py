"""Which attention a policy uses, and our own: variable-length attention over packed sequences on any device.

The flash-attention packages and the CUDA branch of our own have not been run on a GPU.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from sgsd_lightning.policy.precision import product_dtype

log = logging.getLogger(__name__)

VARLEN = "sgsd_varlen"
_PACKABLE_LAYERS = {"full_attention", "sliding_attention"}
_HALF_PRECISION = (torch.float16, torch.bfloat16)
_is_packed_forward: ContextVar[bool] = ContextVar("is_packed_forward", default=False)


def resolve_attention(name: str, config: PreTrainedConfig, dtype: torch.dtype) -> str:
    """The attention implementation to load a model with.

    ``auto`` prefers flash-attention 3, then 2, where the package, a GPU and a half-precision dtype are there, and our
    own ``sgsd_varlen`` otherwise. Architectures whose layers cannot be kept apart in a packed row (linear attention,
    chunked attention, capped attention logits, attention sinks) get ``sdpa`` or ``eager`` and padded rows. Any other
    name is taken as it is.
    """
    if name != "auto":
        return name
    chosen = _automatic_attention(config.get_text_config(), dtype)
    log.info("attention: auto resolved to %s", chosen)
    return chosen


def _automatic_attention(config: PreTrainedConfig, dtype: torch.dtype) -> str:
    # eager is the one implementation that every architecture has its own quirks in
    if getattr(config, "attn_logit_softcapping", None) is not None or config.model_type == "gpt_oss":
        return "eager"
    if not set(getattr(config, "layer_types", None) or ()) <= _PACKABLE_LAYERS:
        return "sdpa"
    if torch.cuda.is_available() and dtype in _HALF_PRECISION:
        if is_flash_attn_3_available():
            return "flash_attention_3"
        if is_flash_attn_2_available():
            return "flash_attention_2"
    return VARLEN


def can_pack(implementation: str) -> bool:
    """Whether an attention implementation keeps sequences apart that are packed into one row."""
    return implementation == VARLEN or needs_gpu(implementation)


def needs_gpu(implementation: str) -> bool:
    """Whether an attention implementation is one of the flash-attention packages."""
    return implementation.startswith("flash_attention")


@contextmanager
def packed_forward() -> Iterator[None]:
    """Within this, ``sgsd_varlen`` is given segment boundaries instead of a mask, and insists on them."""
    token = _is_packed_forward.set(True)
    try:
        yield
    finally:
        _is_packed_forward.reset(token)


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment of a packed row; plain SDPA when no segments are given.

    Args:
        module: The attention layer.
        query: [1, heads, L, head_dim] (any batch size when no segments are given).
        key: [1, kv_heads, L, head_dim]; kv_heads divides heads.
        value: Like ``key``.
        attention_mask: Used only when no segments are given.
        dropout: Only 0: policies run without.
        scaling: Of the attention logits.
        sliding_window: How many positions, itself included, a token sees; None for all before it.
        softcap: Not supported.
        cu_seq_lens_q: [segments + 1] int32, cumulative segment lengths.
        max_length_q: The longest segment.
        kwargs: Passed on to SDPA when no segments are given.

    Returns:
        [batch, L, heads, head_dim], and None for the attention weights.

    Raises:
        ValueError: for dropout, for a model that caps its attention logits or has attention sinks, or for one that
            does not pass the segment boundaries on to its layers.
    """
    if dropout:
        raise ValueError(f"policy.attention sgsd_varlen runs without dropout; got {dropout}")
    if softcap is not None or kwargs.get("s_aux") is not None:
        raise ValueError("policy.attention sgsd_varlen has no logit cap and no attention sinks; set it to eager")
    if cu_seq_lens_q is None:
        if _is_packed_forward.get():
            raise ValueError(
                f"{type(module).__name__} does not receive the boundaries of packed sequences; "
                "set policy.attention to sdpa"
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    # norms under autocast leave queries and keys in float32 beside values in half precision
    dtype = product_dtype(value)
    query, key, value = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))  # [L, heads, head_dim]
    segments = _Segments(
        boundaries=cu_seq_lens_q,
        longest=len(query) if max_length_q is None else int(max_length_q),
        scaling=scaling,
        sliding_window=sliding_window,
    )
    if query.is_cuda and query.dtype in _HALF_PRECISION and _has_varlen_kernels():
        output = _varlen_kernels(query, key, value, segments)
    else:
        output = _loop_over_segments(query, key, value, segments)
    return output[None], None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segments:
    boundaries: Tensor
    longest: int
    scaling: float | None
    sliding_window: int | None


@functools.cache
def _has_varlen_kernels() -> bool:
    """Whether torch's variable-length attention takes all that we need to tell it; early versions do not."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)


def _varlen_kernels(query: Tensor, key: Tensor, value: Tensor, segments: _Segments) -> Tensor:
    """Torch's own variable-length kernels; not run on a GPU so far. All tensors are [L, heads, head_dim]."""
    from torch.nn.attention.varlen import varlen_attn

    lookback = -1 if segments.sliding_window is None else segments.sliding_window - 1
    output = varlen_attn(
        query,
        key,
        value,
        segments.boundaries,
        segments.boundaries,
        segments.longest,
        segments.longest,
        scale=segments.scaling,
        window_size=(lookback, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(output, Tensor)  # a tuple only when more is asked for
    return output


def _loop_over_segments(query: Tensor, key: Tensor, value: Tensor, segments: _Segments) -> Tensor:
    """One batched SDPA call for all segments of one length. All tensors are [L, heads, head_dim]."""
    by_length: dict[int, list[int]] = {}
    for start, end in pairwise(segments.boundaries.tolist()):
        by_length.setdefault(end - start, []).append(start)
    outputs, places = [], []
    for length, starts in by_length.items():
        index = torch.tensor(starts)[:, None] + torch.arange(length)  # [segments, length]
        index = index.to(query.device)
        mask = _window_mask(length, segments.sliding_window, query.device)
        output = scaled_dot_product_attention(
            query[index].transpose(1, 2),
            key[index].transpose(1, 2),
            value[index].transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            scale=segments.scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
        places.append(index.flatten())
    return torch.cat(outputs)[torch.argsort(torch.cat(places))]


def _window_mask(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """[length, length] bool, True where a row's token sees a column's; None where plain causality says it all."""
    if sliding_window is None or length <= sliding_window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < sliding_window)


def _varlen_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _is_packed_forward.get() else sdpa_mask(*args, **kwargs)


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, _varlen_mask)
