"""The cache that is written in place: the same keys and values as by concatenation, without copying them per token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from sgsd_lightning.engines import GenerationRequest, TransformersEngine
from sgsd_lightning.engines.growing_layer import GROWTH_COLUMNS, GrowingLayer
from sgsd_lightning.engines.row_inputs import RowInputs
from sgsd_lightning.types import SamplingSettings


def states(num_rows: int, num_tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, num_rows, 3, num_tokens, 5, generator=generator)
    return keys, values


def same(layer: GrowingLayer, keys: Tensor, values: Tensor) -> None:
    assert torch.equal(layer.keys, keys)
    assert torch.equal(layer.values, values)
    assert layer.get_seq_length() == keys.shape[-2]


def test_a_layer_holds_what_concatenation_would_give() -> None:
    plain = DynamicLayer()
    plain.update(*states(4, 7, 0))
    layer = GrowingLayer(*states(4, 7, 0))
    for step in range(2 * GROWTH_COLUMNS + 3):
        new = states(4, 1, step + 1)
        found, expected = layer.update(*new), plain.update(*new)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    keys, values = plain.keys, plain.values
    index = torch.tensor([2, 0, 2])
    layer.cut(50)
    layer.select(index)
    same(layer, keys[index][..., -50:, :], values[index][..., -50:, :])
    new = states(3, 1, 1000)
    layer.update(*new)
    same(
        layer, torch.cat([keys[index][..., -50:, :], new[0]], -2), torch.cat([values[index][..., -50:, :], new[1]], -2)
    )


def test_a_token_is_written_where_it_belongs_and_nothing_else_is_copied() -> None:
    layer = GrowingLayer(*states(2, 4, 0))
    layer.update(*states(2, 1, 1))
    buffer = layer.keys.data_ptr()
    for step in range(GROWTH_COLUMNS - 1):
        layer.update(*states(2, 1, 2 + step))
        assert layer.keys.data_ptr() == buffer
    layer.update(*states(2, 1, 0))
    assert layer.keys.data_ptr() != buffer


def test_what_rows_feed_to_their_next_token_follows_them() -> None:
    uniforms = torch.arange(12, dtype=torch.float64).view(3, 4)
    inputs = RowInputs.of(uniforms).followed_by(torch.tensor([7, 8, 9]))
    assert inputs.next_uniforms.tolist() == [1, 5, 9]
    fewer = inputs.select(torch.tensor([2, 0]))
    assert fewer.last_ids.tolist() == [9, 7]
    joined = fewer.joined_by(RowInputs.of(uniforms[1:2]))
    assert joined.next_uniforms.tolist() == [9, 1, 4]
    assert joined.followed_by(torch.tensor([1, 2, 3])).next_uniforms.tolist() == [10, 2, 5]


class _Uploads(TorchDispatchMode):
    """Counts tensors that are made from Python's numbers, each of which is an upload where the model is on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0
        self.num_concatenated = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.num += func is torch.ops.aten.lift_fresh.default
        self.num_concatenated += func is torch.ops.aten.cat.default and args[0][0].dim() == 4 and args[1:] == (-2,)
        return func(*args, **(kwargs or {}))


def test_more_tokens_need_no_more_uploads_and_no_concatenation_of_the_cache(
    make_model: Callable[..., PreTrainedModel], make_request: Callable[[int, int], GenerationRequest]
) -> None:
    model = make_model()
    requests = [replace(make_request(5, seed), stop_ids=()) for seed in range(4)]
    found = []
    for max_new_tokens in (4, 12):
        with _Uploads() as uploads:
            completions = TransformersEngine().generate(
                model, requests, SamplingSettings(max_new_tokens=max_new_tokens, sampling_top_k=3)
            )
        assert {len(completion.ids) for completion in completions} == {max_new_tokens}
        found.append((uploads.num, uploads.num_concatenated))
    assert found[0] == found[1]
