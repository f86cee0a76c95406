"""One layer's key-value cache, written in place: it grows by many columns at a time, not by one per token."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

GROWTH_COLUMNS = 128
"""Tokens that a layer has room for each time it grows, which copies it."""


class GrowingLayer(DynamicLayer):
    """Keys and values of B rows, [B, heads, W, head_dim], as views into buffers that are wider.

    Appending a token copies that token, where transformers' own layer copies the whole cache. What stands to the right
    of the views is never read.

    Args:
        keys: [B, heads, W, head_dim]; taken over.
        values: Like ``keys``.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._hold(keys, values, 0, keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [B, heads, N, head_dim] and return all keys and values."""
        width, end = self._end - self._start, self._end + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            room = (0, 0, 0, max(GROWTH_COLUMNS, key_states.shape[-2]))
            self._hold(pad(self.keys, room), pad(self.values, room), 0, width)
            end = width + key_states.shape[-2]
        self._key_buffer[..., self._end : end, :] = key_states
        self._value_buffer[..., self._end : end, :] = value_states
        self._hold(self._key_buffer, self._value_buffer, self._start, end)
        return self.keys, self.values

    def select(self, index: Tensor) -> None:
        """Keep the rows ``index`` [B'] int64, in that order; the room to the right stays."""
        width = self._end - self._start
        keys, values = (
            buffer[..., self._start :, :].index_select(0, index) for buffer in (self._key_buffer, self._value_buffer)
        )
        self._hold(keys, values, 0, width)

    def cut(self, width: int) -> None:
        """Keep the last ``width`` columns. Their memory is freed when rows are selected or the layer grows."""
        self._hold(self._key_buffer, self._value_buffer, self._end - width, self._end)

    def _hold(self, key_buffer: Tensor, value_buffer: Tensor, start: int, end: int) -> None:
        self._key_buffer, self._value_buffer, self._start, self._end = key_buffer, value_buffer, start, end
        self.keys, self.values = key_buffer[..., start:end, :], value_buffer[..., start:end, :]
