"""Counted operations against those that torch counts while it runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sgsd_lightning.planning.devices import peak_flops_per_second
from sgsd_lightning.planning.flops import (
    attended_pairs,
    generation_flops,
    model_flop_utilisation,
    scoring_flops,
    training_flops,
)
from sgsd_lightning.planning.model_shape import ModelShape, model_shape
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import TokenSequence
from tests.planning.sized_runs import LORA, scored_model

LENGTHS, NUM_COMPLETION_TOKENS = [11, 40], 19


def _batch() -> object:
    sequences = [
        TokenSequence.causal(tuple(range(5)), tuple(range(7))),
        TokenSequence.causal(tuple(range(29)), tuple(range(12))),
    ]
    assert [sequence.num_input_tokens for sequence in sequences] == LENGTHS
    return pack(sequences)


def _attention(shape: ModelShape, lengths: list[int]) -> int:
    """Of one forward pass, the definition: two products over every pair."""
    pairs = sum(len([key for query in range(length) for key in range(query + 1)]) for length in lengths)
    return 2 * 2 * pairs * shape.num_heads * shape.head_dim * shape.num_layers


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_products_are_those_that_torch_runs(lora: object, gradient_checkpointing: bool) -> None:
    model = scored_model(lora=lora, gradient_checkpointing=gradient_checkpointing)
    shape = model_shape(model)
    with FlopCounterMode(display=False) as forward:
        loss = model.score(_batch(), implementation="chunked").logprob.sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    counted = training_flops(shape, LENGTHS, NUM_COMPLETION_TOKENS, gradient_checkpointing=gradient_checkpointing)
    # torch does not count the attention that runs on the CPU
    attention = _attention(shape, LENGTHS)
    assert counted.forward - attention == forward.get_total_flops()
    num_attentions = 3 if gradient_checkpointing else 2
    assert counted.backward + counted.recompute - num_attentions * attention == backward.get_total_flops()


def test_attention_is_the_causal_half_of_what_torch_counts() -> None:
    model = scored_model(attention="eager")
    shape, length = model_shape(model), 40
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(length)[None], use_cache=False)
    square = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    counted = scoring_flops(shape, [length], length).forward
    products = counter.get_total_flops() - square
    assert (counted - products) * 2 * length == square * (length + 1)


def test_generation_costs_what_torch_counts_step_by_step() -> None:
    model = scored_model(attention="eager").eval()
    shape, prompt, new = model_shape(model), 9, 6
    with FlopCounterMode(display=False) as counter:
        model.generate(torch.arange(prompt)[None], max_new_tokens=new, min_new_tokens=new, do_sample=False)
    attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    # the prompt's attention is a square there; one query at a time sees exactly what it may
    steps = sum(range(prompt + 1, prompt + new))
    assert attention == 4 * shape.num_layers * shape.num_heads * shape.head_dim * (prompt**2 + steps)
    counted = generation_flops(shape, [prompt], [new]).forward
    assert counted - _attention(shape, [prompt + new - 1]) == counter.get_total_flops() - attention


@pytest.mark.parametrize(("length", "window"), [(1, None), (7, None), (7, 3), (7, 7), (7, 100), (5, 1)])
def test_attended_pairs_are_counted_one_by_one(length: int, window: int | None) -> None:
    seen = [
        (query, key) for query in range(length) for key in range(query + 1) if window is None or query - key < window
    ]
    assert attended_pairs(length, window) == len(seen)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100X", None),
        ("Tesla V100-SXM2-16GB", None),
        ("cpu", None),
    ],
)
def test_peak_of_a_device(name: str, tera: float | None) -> None:
    peak = peak_flops_per_second(name)
    assert peak == (None if tera is None else pytest.approx(tera * 1e12))


def test_utilisation() -> None:
    assert model_flop_utilisation(4e12, 2.0, 4, 1e12) == pytest.approx(0.5)
    assert model_flop_utilisation(4e12, 2.0, 4, None) is None
    with pytest.raises(ValueError, match="seconds above 0"):
        model_flop_utilisation(1.0, 0.0, 1, 1e12)
