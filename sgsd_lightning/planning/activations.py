"""Bytes of activations: what autograd keeps for the backward pass, and what is alive for a moment besides.

Counted for a decoder of transformers in plain (not compiled) execution, operator by operator:

* a norm keeps its input in float32, and its normalised values where its weight is trained;
* a trained matrix keeps its input, once for all matrices that read the same tensor, unless autocast or an adapter's own
  dtype makes a copy for each;
* a frozen matrix keeps nothing, its adapter a copy of the input in the adapter's dtype and ``rank`` numbers;
* attention keeps queries, keys, values, its output and one float32 per head and token: a kernel that never holds the
  scores (flash-attention, torch's variable-length attention) is assumed;
* the gated MLP keeps three tensors of its width.

What the allocator rounds up and leaves unused is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sgsd_lightning.planning.model_shape import LinearLayer
from sgsd_lightning.planning.run_settings import RunSettings


def saved_bytes_per_token(run: RunSettings) -> int:
    """Return the bytes that one decoder layer keeps per token for its backward pass."""
    shape = run.shape
    query, key = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    norms = 2 * _norm(run, shape.hidden_size, run.stream_bytes)
    if shape.has_query_key_norm:
        norms += _norm(run, query + key, run.compute_bytes)
    attention = run.compute_bytes * (2 * query + 2 * key) + 4 * shape.num_heads
    mlp = 3 * run.compute_bytes * shape.intermediate_size
    return norms + attention + mlp + sum(_kept_inputs(run))


def student_bytes(run: RunSettings) -> int:
    """What is kept from the student's forward pass to its backward pass, for all rollouts of a micro-batch.

    Under gradient checkpointing: the inputs of all layers, and all of the one that is being computed again.
    """
    shape = run.shape
    num_tokens = run.num_rollouts * run.student_length
    layer_input = run.stream_bytes * shape.hidden_size
    if run.gradient_checkpointing:
        body = shape.num_layers * layer_input + saved_bytes_per_token(run)
    else:
        body = shape.num_layers * saved_bytes_per_token(run)
    rotary = 2 * run.stream_bytes * shape.head_dim
    last_norm = _norm(run, shape.hidden_size, run.stream_bytes)
    at_head = run.num_rollouts * run.completion_tokens * run.compute_bytes * shape.hidden_size
    return num_tokens * (body + rotary + last_norm) + at_head


def student_momentary_bytes(run: RunSettings) -> int:
    """Gradients of activations that are alive together in the backward pass of one layer's MLP, the widest place.

    Three of the MLP's width in the dtype of the products, two of the residual stream's, and with adapters of another
    dtype one more of the MLP's width in that.
    """
    shape = run.shape
    per_token = 3 * run.compute_bytes * shape.intermediate_size + 2 * run.stream_bytes * shape.hidden_size
    if _has_adapter_casts(run):
        per_token += run.adapter_compute_bytes * shape.intermediate_size
    return run.num_rollouts * run.student_length * per_token


def no_grad_bytes(run: RunSettings, num_tokens: int) -> int:
    """What is alive at once in a forward pass without gradient over so many tokens: the MLP of one layer.

    Four tensors of the residual stream's width and three of the MLP's; with adapters two of these and two in the
    adapter's dtype, and a copy of the input where that is another dtype.
    """
    shape = run.shape
    width = shape.intermediate_size
    per_token = 4 * run.stream_bytes * shape.hidden_size + 2 * run.stream_bytes * shape.head_dim
    if shape.has_adapters:
        per_token += 2 * (run.compute_bytes + run.adapter_compute_bytes) * width
        per_token += run.adapter_compute_bytes * shape.hidden_size if _has_adapter_casts(run) else 0
    else:
        per_token += 3 * run.compute_bytes * width
    return num_tokens * per_token


def _norm(run: RunSettings, width: int, input_bytes: int) -> int:
    return width * (4 if run.shape.has_adapters else 4 + input_bytes)


def _has_adapter_casts(run: RunSettings) -> bool:
    return run.shape.has_adapters and run.adapter_compute_bytes != run.compute_bytes


def _kept_inputs(run: RunSettings) -> Iterator[int]:
    """Yield bytes per token, for each tensor that matrices read."""
    groups: dict[str, list[LinearLayer]] = {}
    for layer in run.shape.linear_layers:
        groups.setdefault(_what_it_reads(layer), []).append(layer)
    for what, layers in groups.items():
        is_from_stream = what in ("attention", "mlp")
        input_bytes = run.stream_bytes if is_from_stream else run.compute_bytes
        width = layers[0].in_features
        if run.shape.has_adapters:
            yield _kept_by_adapters(run, [layer for layer in layers if layer.adapter_rank], width, input_bytes, what)
        elif run.compute_bytes != input_bytes:
            yield len(layers) * width * run.compute_bytes
        elif what != "attention output":  # which attention keeps already
            yield width * run.compute_bytes


def _kept_by_adapters(run: RunSettings, adapted: list[LinearLayer], width: int, input_bytes: int, what: str) -> int:
    kept = sum(layer.adapter_rank for layer in adapted) * run.adapter_compute_bytes
    is_cast = run.autocast_dtype is not None or run.adapter_compute_bytes != input_bytes
    if is_cast:
        return kept + len(adapted) * width * run.adapter_compute_bytes
    if adapted and what != "attention output":
        kept += width * run.adapter_compute_bytes
    return kept


def _what_it_reads(layer: LinearLayer) -> str:
    if layer.reads_layer_input:
        return "attention"
    if layer.name.endswith("o_proj"):
        return "attention output"
    return "mlp" if layer.name.startswith("mlp.") and not layer.name.endswith("down_proj") else layer.name
