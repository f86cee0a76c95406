"""Chooses a policy's attention, and implements variable-length attention over packed sequences on any device.

The flash-attention packages and the CUDA branch of our own have not been run on a GPU.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from sgsd_lightning.scoring.architectures import has_packable_layers, is_packable, own_attention
from sgsd_lightning.scoring.packing import RowLayout
from sgsd_lightning.scoring.precision import product_dtype
from sgsd_lightning.scoring.segments import Segment, Segments, Span

log = logging.getLogger(__name__)

VARLEN = "sgsd_varlen"
FLEX = "flex_attention"
_HALF_PRECISION = (torch.float16, torch.bfloat16)
_is_packed_forward: ContextVar[bool] = ContextVar("is_packed_forward", default=False)


def resolve_attention(name: str, config: PreTrainedConfig, dtype: torch.dtype) -> str:
    """Return the attention implementation to load a model with.

    ``auto`` prefers flash-attention 3, then 2, where the package, a GPU and a half-precision dtype are there, and our
    own ``sgsd_varlen`` otherwise. Architectures whose sequences cannot be kept apart in a packed row (see
    :func:`is_packable`; capped attention logits, attention sinks) get ``sdpa`` or ``eager`` and padded rows. Any other
    name is taken as it is.
    """
    if name != "auto":
        return name
    chosen = _automatic_attention(config, dtype)
    log.info("attention: auto resolved to %s", chosen)
    return chosen


def _automatic_attention(config: PreTrainedConfig, dtype: torch.dtype) -> str:
    text = config.get_text_config()
    # eager is the one implementation that every architecture has its own quirks in
    if getattr(text, "attn_logit_softcapping", None) is not None or text.model_type == "gpt_oss":
        return "eager"
    if not is_packable(config):
        return own_attention(config)
    if torch.cuda.is_available() and dtype in _HALF_PRECISION:
        if is_flash_attn_3_available():
            return "flash_attention_3"
        if is_flash_attn_2_available():
            return "flash_attention_2"
    return VARLEN


def allow_cudnn_attention(is_allowed: bool) -> None:
    """Say whether `scaled_dot_product_attention` may choose cuDNN, in this process from now on.

    Torch prefers it on Hopper since 2.11. There it builds a plan for every new shape, which scoring and decoding make
    all the time, and its backward pass gives NaN under some masks (pytorch issue 196678). The switch is the whole
    process's, because recomputed activations run in the backward pass, outside any block of ours. Where cuDNN is
    allowed, torch's own setting stays.
    """
    if not is_allowed:
        torch.backends.cuda.enable_cudnn_sdp(False)


def row_layout(config: PreTrainedConfig) -> RowLayout:
    """Return the layout of sequences that suits a model and its attention implementation best.

    ``sdpa`` and ``eager`` also keep packed sequences apart, by a mask over the whole row, whose cost grows with the
    row's length squared: they are given padded rows. So are models with layers that know no segments.
    """
    implementation = config._attn_implementation
    if not has_packable_layers(config):
        return "padded"
    if implementation == VARLEN:
        return "shared"
    return "packed" if implementation == FLEX or is_flash(implementation) else "padded"


def is_flash(implementation: str) -> bool:
    """Whether an attention implementation is one of the flash-attention packages."""
    return implementation.startswith("flash_attention")


def runs_on_cpu(implementation: str) -> bool:
    """Whether an attention implementation can be tried where a model is loaded, without a GPU and at no great cost."""
    return not is_flash(implementation) and implementation != FLEX


def segment_arguments(implementation: str, segments: Segments) -> dict[str, Any]:
    """Return the arguments that tell a model's layers where the segments of a packed row are.

    The implementations of transformers other than flash attention find it in the position ids, which start again.

    Raises:
        ValueError: for a shared prefix, or sequences that are not causal, and another implementation than
            ``sgsd_varlen``.
    """
    if implementation == VARLEN:
        return {"segments": segments}
    if segments.key_index is not None:
        raise ValueError(f"policy.attention {implementation} cannot share a prefix between sequences")
    if not segments.is_causal:
        raise ValueError(
            f"policy.attention {implementation} is causal, and some sequences are not; set it to sgsd_varlen"
        )
    if not is_flash(implementation):
        return {}
    return {
        "cu_seq_lens_q": segments.query_starts,
        "cu_seq_lens_k": segments.key_starts,
        "max_length_q": segments.longest_query,
        "max_length_k": segments.longest_key,
    }


def check_backward(model: PreTrainedModel) -> None:
    """Refuse to train with torch's flex attention on a CPU, where it has no backward pass.

    Raises:
        ValueError: in a forward pass that records gradients, there.
    """
    is_flex = model.config._attn_implementation == FLEX
    if is_flex and model.device.type == "cpu" and torch.is_grad_enabled():
        raise ValueError("policy.attention flex_attention has no backward pass on a CPU; set it to auto")


@contextmanager
def packed_forward() -> Iterator[None]:
    """Make ``sgsd_varlen`` require segment boundaries in the place of a mask."""
    token = _is_packed_forward.set(True)
    try:
        yield
    finally:
        _is_packed_forward.reset(token)


@torch.compiler.disable
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
    segments: Segments | None = None,
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
        segments: Of the row, on its device.
        kwargs: Passed on to SDPA when no segments are given.

    Returns:
        [batch, L, heads, head_dim], and None for the attention weights.

    Raises:
        ValueError: for dropout, for a model that caps its attention logits or has attention sinks, for one that does
            not pass the segment boundaries on to its layers, or for sequences that are not causal and exceed a window.
    """
    if dropout:
        raise ValueError(f"policy.attention sgsd_varlen runs without dropout; got {dropout}")
    if softcap is not None or kwargs.get("s_aux") is not None:
        raise ValueError("policy.attention sgsd_varlen has no logit cap and no attention sinks; set it to eager")
    if segments is None:
        if _is_packed_forward.get():
            raise ValueError(
                f"{type(module).__name__} does not receive the boundaries of packed sequences; "
                "set policy.attention to sdpa"
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if sliding_window is not None and segments.longest_not_causal > sliding_window:
        raise ValueError("a sequence that is not causal cannot be longer than a model's sliding window")
    # norms under autocast leave queries and keys in float32 beside values in half precision
    dtype = product_dtype(value)
    query, key, value = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))  # [L, heads, head_dim]
    has_kernels = query.is_cuda and query.dtype in _HALF_PRECISION and _has_varlen_kernels()
    attend = _varlen_kernels if has_kernels and _kernels_agree(query.device, query.dtype) else _sdpa_by_shape
    return attend(query, key, value, segments, scaling, sliding_window)[None], None


@functools.cache
def _has_varlen_kernels() -> bool:
    """Whether torch's variable-length attention has all arguments that we need; early versions lack some."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= _parameters(varlen_attn)


@functools.cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


@functools.cache
def _kernels_agree(device: torch.device, dtype: torch.dtype) -> bool:
    """Test on a small case with a shared prefix whether torch's kernels compute on this device what we expect.

    A causal diagonal aligned at the wrong end, or a window off by one, would silently train on wrong scores.
    """
    # a model may be loaded under another default device, on which a CPU's generator cannot draw
    with torch.no_grad(), torch.device("cpu"):
        # the second continues the first, with fewer queries than keys
        segments = Segments([Segment(start=0, length=5), Segment(start=5, length=4, prefix=(Span(0, 5),))], device)
        generator = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(9, heads, 64, generator=generator).to(device, dtype) for heads in (4, 2, 2))
        tolerance = 8 * torch.finfo(dtype).eps  # of outputs of about 1
        for window in (None, 3):
            expected = _sdpa_by_shape(query, key, value, segments, None, window)
            difference = (_varlen_kernels(query, key, value, segments, None, window) - expected).abs().max().item()
            if not difference <= tolerance:
                log.warning(
                    "attention: torch's varlen_attn on %s differs from plain attention by %.2g%s; it is not used",
                    device,
                    difference,
                    "" if window is None else f" (sliding window of {window})",
                )
                return False
    return True


def _varlen_kernels(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None, sliding_window: int | None
) -> Tensor:
    """Torch's own variable-length kernels; not run on a GPU so far. All tensors are [L, heads, head_dim].

    Where a segment has more keys than queries, these align the causal diagonal at their ends, which is what a shared
    prefix needs.
    """
    from torch.nn.attention.varlen import varlen_attn

    if segments.key_index is not None:
        key, value = (states.index_select(0, segments.key_index) for states in (key, value))
    is_grouped = key.shape[1] != query.shape[1]
    grouping: dict[str, Any] = {"enable_gqa": is_grouped} if "enable_gqa" in _parameters(varlen_attn) else {}
    if is_grouped and not grouping:  # torch 2.11
        key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
    lookback = -1 if sliding_window is None else sliding_window - 1
    output = varlen_attn(
        query,
        key,
        value,
        segments.query_starts,
        segments.key_starts,
        segments.longest_query,
        segments.longest_key,
        scale=scaling,
        window_size=(lookback, 0) if segments.is_causal else (-1, -1),
        **grouping,
    )
    assert isinstance(output, Tensor)  # a tuple only when more is asked for
    return output


def _sdpa_by_shape(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None, sliding_window: int | None
) -> Tensor:
    """One batched SDPA call for all segments of one shape. All tensors are [L, heads, head_dim]."""
    blocks, order = segments.blocks(sliding_window)

    def rows(states: Tensor, index: Tensor, num_segments: int) -> Tensor:
        # selecting by a flat index is several times faster on a CPU than by a matrix of them
        return states.index_select(0, index).unflatten(0, (num_segments, -1)).transpose(1, 2)

    outputs = [
        scaled_dot_product_attention(
            rows(query, block.query_index, block.num_segments),
            rows(key, block.key_index, block.num_segments),
            rows(value, block.key_index, block.num_segments),
            attn_mask=block.mask,
            is_causal=block.mask is None and block.is_causal,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for block in blocks
    ]
    own = [
        output.transpose(1, 2)[:, block.num_dropped :].flatten(0, 1)
        for output, block in zip(outputs, blocks, strict=True)
    ]
    return torch.cat(own).index_select(0, order)


def _varlen_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _is_packed_forward.get() else sdpa_mask(*args, **kwargs)


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, _varlen_mask)
