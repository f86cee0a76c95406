"""The key-value cache of rows that are decoded together; rows can leave it, join it and lose their padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sgsd_lightning.engines.growing_layer import GrowingLayer


class CachedRows:
    """B rows of at most W cached tokens; shorter rows are padded on the left.

    Args:
        cache: The model's cache of B rows.
        mask: [B, W] int64, 1 where a token is cached and 0 where there is padding.
    """

    def __init__(self, cache: Any, mask: Tensor) -> None:
        self.cache = cache
        self.mask = mask
        self._next_position = mask.sum(-1)
        if isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers):
            cache.layers = [GrowingLayer(layer.keys, layer.values) for layer in cache.layers]

    @property
    def width(self) -> int:
        return self.mask.shape[1]

    @property
    def can_be_cut(self) -> bool:
        """Whether the cache holds only keys and values of all tokens, so that columns can be added and removed."""
        return isinstance(self.cache, DynamicCache) and all(type(layer) is GrowingLayer for layer in self.cache.layers)

    def append(self, ids: Tensor) -> dict[str, Tensor]:
        """Make room for one more token per row, [B] int64; return the inputs of a forward pass over them."""
        self.mask = pad(self.mask, (0, 1), value=1)
        inputs = {
            "input_ids": ids[:, None],
            "attention_mask": self.mask,
            "position_ids": self._next_position[:, None],
        }
        self._next_position = self._next_position + 1
        return inputs

    def select(self, index: Tensor) -> None:
        """Keep the rows ``index`` [B'] int64, in this order; a row may come more than once."""
        if self.can_be_cut:
            for layer in self.cache.layers:
                layer.select(index)
        else:
            self.cache.reorder_cache(index)  # the one selection of rows that every kind of cache has
        self.mask = self.mask[index]
        self._next_position = self._next_position[index]

    def join(self, others: CachedRows) -> None:
        """Append the rows of ``others``. Both must satisfy `can_be_cut`."""
        width = max(self.width, others.width)
        self.cache.layers = [
            GrowingLayer(
                torch.cat([_widened(layer.keys, width), _widened(other.keys, width)]),
                torch.cat([_widened(layer.values, width), _widened(other.values, width)]),
            )
            for layer, other in zip(self.cache.layers, others.cache.layers, strict=True)
        ]
        masks = [pad(rows.mask, (width - rows.width, 0)) for rows in (self, others)]
        self.mask = torch.cat(masks)
        self._next_position = torch.cat([self._next_position, others._next_position])

    def cut(self, width: int) -> None:
        """Keep the last ``width`` columns: tokens before them are lost. Requires `can_be_cut`."""
        if width >= self.width:
            return
        for layer in self.cache.layers:
            layer.cut(width)
        self.mask = self.mask[:, -width:]


def _widened(states: Tensor, width: int) -> Tensor:
    """Pad on the left to [B, heads, width, head_dim]."""
    return pad(states, (0, 0, width - states.shape[-2], 0))
