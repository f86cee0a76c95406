"""Segments of a packed row: each attends to itself and to a prefix that it may share with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from sgsd_lightning.distributed.uploads import to_device, upload


class Span(NamedTuple):
    """Consecutive tokens of a row; the start counts from its beginning."""

    start: int
    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Consecutive tokens of a row. Each sees the whole prefix, and what is before it in the segment."""

    start: int
    length: int
    """At least 1."""
    is_causal: bool = True
    """False: each token also sees what is after it in the segment."""
    prefix: tuple[Span, ...] = ()
    """Earlier tokens that the segment continues, in order; empty if it attends to itself alone."""

    @property
    def prefix_length(self) -> int:
        """Tokens."""
        return sum(span.length for span in self.prefix)

    @property
    def num_keys(self) -> int:
        """Tokens that its last token sees, itself included."""
        return self.prefix_length + self.length

    def key_places(self) -> Tensor:
        """[num_keys] int64: where these are in the row."""
        spans = (*self.prefix, Span(self.start, self.length))
        return torch.cat([torch.arange(span.length) + span.start for span in spans])


class Block(NamedTuple):
    """Segments of one shape, which one attention call handles."""

    places: Tensor
    """[segments * own tokens] int64: where in the row."""
    query_index: Tensor
    """[segments * queries] int64: the same, or with those of the prefix before each segment's."""
    key_index: Tensor
    """[segments * keys] int64."""
    num_segments: int
    mask: Tensor | None
    """[queries, keys] bool, True where a query sees a key; None where ``is_causal`` says it all."""
    is_causal: bool
    """Where there is no mask: whether a query sees only keys before it, or all of them."""
    num_dropped: int
    """Queries of the prefix, whose output is dropped."""


class Segments:
    """The segments that a packed row of L tokens is made of; they cover it in order.

    Tensors for attention are computed on first use, once for all layers.

    Args:
        segments: At least one.
        device: Of the tensors.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device | str = "cpu") -> None:
        self.segments = tuple(segments)
        self.device = torch.device(device)
        self._blocks: dict[int | None, tuple[list[Block], Tensor]] = {}

    def to(self, device: torch.device) -> Segments:
        """The same segments with tensors on ``device``."""
        return self if device == self.device else Segments(self.segments, device)

    @cached_property
    def is_causal(self) -> bool:
        """Whether every segment is.

        Raises:
            ValueError: where some are and some are not, which variable-length kernels cannot run in one pass.
        """
        kinds = {segment.is_causal for segment in self.segments}
        if len(kinds) > 1:
            raise ValueError("one forward pass holds causal sequences and others that are not; score them apart")
        return kinds.pop()

    @cached_property
    def longest_query(self) -> int:
        """Tokens of the longest segment."""
        return max(segment.length for segment in self.segments)

    @cached_property
    def longest_key(self) -> int:
        """The most tokens that a segment sees."""
        return max(segment.num_keys for segment in self.segments)

    @cached_property
    def longest_not_causal(self) -> int:
        """Tokens of the longest segment that is not causal; 0 where there is none."""
        return max((segment.num_keys for segment in self.segments if not segment.is_causal), default=0)

    @cached_property
    def query_starts(self) -> Tensor:
        """[segments + 1] int32: cumulative lengths (``cu_seqlens``)."""
        return self._cumulative([segment.length for segment in self.segments])

    @cached_property
    def key_starts(self) -> Tensor:
        """[segments + 1] int32: cumulative numbers of keys."""
        return self._cumulative([segment.num_keys for segment in self.segments])

    @cached_property
    def key_index(self) -> Tensor | None:
        """[keys of all segments] int64: their places in the row; None when nothing is shared."""
        if not any(segment.prefix for segment in self.segments):
            return None
        return to_device(torch.cat([segment.key_places() for segment in self.segments]), self.device)

    def blocks(self, sliding_window: int | None) -> tuple[list[Block], Tensor]:
        """The segments by shape, and the [L] int64 order that puts their outputs, one after the other, into the row."""
        if sliding_window not in self._blocks:
            by_shape: dict[tuple[int, int, bool], list[Segment]] = {}
            for segment in self.segments:
                by_shape.setdefault((segment.length, segment.prefix_length, segment.is_causal), []).append(segment)
            blocks = [self._block(same, sliding_window) for same in by_shape.values()]
            order = torch.argsort(torch.cat([block.places for block in blocks]))
            self._blocks[sliding_window] = blocks, order
        return self._blocks[sliding_window]

    def _block(self, segments: Sequence[Segment], sliding_window: int | None) -> Block:
        first = segments[0]
        places = torch.cat([torch.arange(segment.length) + segment.start for segment in segments])
        key_index = torch.cat([segment.key_places() for segment in segments])
        places, key_index = to_device(places, self.device), to_device(key_index, self.device)
        # without a mask attention skips half of the square: that is less than a short prefix adds to it
        is_square = first.is_causal and sliding_window is None and first.prefix_length < first.length
        mask = None if is_square else _mask(first, sliding_window)
        return Block(
            places=places,
            query_index=key_index if is_square else places,
            key_index=key_index,
            num_segments=len(segments),
            mask=None if mask is None else to_device(mask, self.device),
            is_causal=first.is_causal,
            num_dropped=first.prefix_length if is_square else 0,
        )

    def _cumulative(self, lengths: Sequence[int]) -> Tensor:
        return upload(list(accumulate(lengths, initial=0)), torch.int32, self.device)


def _mask(segment: Segment, sliding_window: int | None) -> Tensor | None:
    is_windowed = sliding_window is not None and segment.num_keys > sliding_window
    if not segment.is_causal or (not segment.prefix and not is_windowed):
        return None
    query_position = torch.arange(segment.prefix_length, segment.num_keys)
    distance = query_position[:, None] - torch.arange(segment.num_keys)
    is_seen = distance >= 0
    return is_seen & (distance < sliding_window) if sliding_window is not None else is_seen
