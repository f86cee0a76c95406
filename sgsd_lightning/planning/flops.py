"""Floating-point operations of generating, scoring and training, counted from sizes, never measured.

A product of [a, b] by [b, c] counts 2abc. Counted are the matrices of the decoder layers and of the head, LoRA's
matrices, and the two products of causal attention, of which only the pairs that a token may see count. Left out are
norms, activations, rotary embeddings, softmax and the optimizer.

``forward`` and ``backward`` are what the mathematics needs, which utilisation is computed from. ``recompute``
is what is spent again to save memory: decoder layers under gradient checkpointing (each but for its last product, at
which torch stops) and the logits of the head in its backward pass. Attention kernels recompute their scores in the
backward pass as well, half of their forward; that is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sgsd_lightning.planning.model_shape import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Operations of one or several passes through a model."""

    forward: int = 0
    backward: int = 0
    recompute: int = 0

    @property
    def model(self) -> int:
        """What the mathematics needs: forward and backward."""
        return self.forward + self.backward

    @property
    def total(self) -> int:
        """What the device executes, recomputation included."""
        return self.model + self.recompute

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            recompute=self.recompute + other.recompute,
        )

    def __mul__(self, times: int) -> Flops:
        return Flops(forward=self.forward * times, backward=self.backward * times, recompute=self.recompute * times)


def scoring_flops(shape: ModelShape, lengths: Iterable[int], num_head_positions: int) -> Flops:
    """One forward pass over packed sequences, without gradient.

    Args:
        shape: Of the model; its adapters run as well.
        lengths: Input tokens of each sequence.
        num_head_positions: Positions of all sequences that reach the head.
    """
    lengths = list(lengths)
    body = _linear_flops(shape, sum(lengths)) + _adapter_flops(shape, sum(lengths)) + _attention_flops(shape, lengths)
    return Flops(forward=body + _head_flops(shape, num_head_positions))


def training_flops(
    shape: ModelShape, lengths: Iterable[int], num_head_positions: int, *, gradient_checkpointing: bool = False
) -> Flops:
    """One forward and one backward pass over packed sequences.

    A model with adapters trains these alone: its own matrices take the gradient of their input only, and in the first
    layer those that read the frozen embedding not even that (under gradient checkpointing transformers asks for it).

    Args:
        shape: Of the model.
        lengths: Input tokens of each sequence.
        num_head_positions: Positions that reach the head. In the backward pass those whose gradient is zero cost
            nothing in practice; here all count.
        gradient_checkpointing: Whether decoder layers are computed again in the backward pass.
    """
    lengths = list(lengths)
    num_tokens = sum(lengths)
    head = _head_flops(shape, num_head_positions)
    linear, adapters = _linear_flops(shape, num_tokens), _adapter_flops(shape, num_tokens)
    attention = _attention_flops(shape, lengths)
    if shape.has_adapters:
        backward = linear + 2 * adapters + 2 * attention + head
        if not gradient_checkpointing:
            backward -= _unneeded_input_flops(shape, num_tokens)
    else:
        backward = 2 * (linear + attention + head)
    recompute = head
    if gradient_checkpointing:
        recompute += linear + adapters + attention - _last_product_flops(shape, num_tokens)
    return Flops(forward=linear + adapters + attention + head, backward=backward, recompute=recompute)


def generation_flops(shape: ModelShape, prompt_tokens: Sequence[int], completion_tokens: Sequence[int]) -> Flops:
    """Sampling completions with a key-value cache: as much as one forward pass over what was read.

    A completion's last token is not read any more, and the head runs once per sampled token. Padding of prompts and
    the steps that a row which has ended waits for the others are not counted.

    Args:
        shape: Of the model.
        prompt_tokens: Of each completion.
        completion_tokens: Of each completion, the end-of-sequence token included; at least 1.
    """
    lengths = [prompt + new - 1 for prompt, new in zip(prompt_tokens, completion_tokens, strict=True)]
    return scoring_flops(shape, lengths, sum(completion_tokens))


def attended_pairs(length: int, window: int | None = None) -> int:
    """Pairs of (token, token that it sees) in a causal sequence; a token sees itself.

    Args:
        length: Of the sequence.
        window: How many tokens, itself included, a token sees; None for all before it.
    """
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window


def model_flop_utilisation(
    model_flops: float, seconds: float, num_devices: int, peak_flops_per_second: float | None
) -> float | None:
    """Share of the devices' peak that the mathematics used, in (0, 1]; None where the peak is not known.

    Args:
        model_flops: Of all devices together, without recomputation.
        seconds: That they took.
        num_devices: How many.
        peak_flops_per_second: Of one device, as `sgsd_lightning.planning.devices.peak_flops_per_second` gives it.

    Raises:
        ValueError: for a time or a number of devices that is not above 0.
    """
    if not seconds > 0 or num_devices < 1:
        raise ValueError(f"utilisation needs seconds above 0 and at least 1 device; got {seconds} and {num_devices}")
    if peak_flops_per_second is None:
        return None
    return model_flops / (seconds * num_devices * peak_flops_per_second)


def _linear_flops(shape: ModelShape, num_tokens: int) -> int:
    return 2 * num_tokens * shape.num_linear_weights


def _adapter_flops(shape: ModelShape, num_tokens: int) -> int:
    return 2 * num_tokens * shape.num_adapter_parameters


def _head_flops(shape: ModelShape, num_positions: int) -> int:
    return 2 * num_positions * shape.num_head_weights


def _attention_flops(shape: ModelShape, lengths: Sequence[int]) -> int:
    num_full_layers = shape.num_layers - shape.num_sliding_layers
    pairs = num_full_layers * sum(attended_pairs(length) for length in lengths)
    pairs += shape.num_sliding_layers * sum(attended_pairs(length, shape.sliding_window) for length in lengths)
    # query by key and weight by value, 2 operations each per entry
    return 4 * pairs * shape.num_heads * shape.head_dim


def _unneeded_input_flops(shape: ModelShape, num_tokens: int) -> int:
    """Input gradients of what reads the frozen embedding, the matrix and the adapter's first."""
    readers = [layer for layer in shape.linear_layers if layer.reads_layer_input]
    return 2 * num_tokens * sum(layer.num_weights + layer.adapter_rank * layer.in_features for layer in readers)


def _last_product_flops(shape: ModelShape, num_tokens: int) -> int:
    """The product of each layer after which the backward pass needs nothing more of it."""
    last = shape.linear_layers[-1]
    num_weights = last.num_weights if not last.adapter_rank else last.adapter_rank * last.out_features
    return 2 * num_tokens * shape.num_layers * num_weights
