"""A compiled policy scores, learns and samples as the plain one does, and is compiled once for all lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from sgsd_lightning.policy import LoraSettings, RandomPolicy
from sgsd_lightning.policy.lora import adapters_disabled
from sgsd_lightning.scoring.compilation import compile_layers
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import TokenSequence

MakeIds = Callable[[int, int], tuple[int, ...]]
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 48}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def batches(make_ids: MakeIds) -> list[list[TokenSequence]]:
    """Ragged batches, some with a prompt that several completions share."""
    return [
        [
            TokenSequence.causal(make_ids(3 + 2 * index, kind), make_ids(2 + place * 3, index))
            for kind in range(2)
            for place in range(1 + (index + kind) % 3)
        ]
        for index in range(4)
    ]


def _policy(is_checkpointed: bool, has_adapters: bool) -> PreTrainedModel:
    lora = LoraSettings(rank=2, target_modules=("q_proj", "down_proj")) if has_adapters else None
    model = RandomPolicy(**SIZES, gradient_checkpointing=is_checkpointed, lora=lora).load_model()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=generator)
    bind_score(model)
    return model


def _step(model: PreTrainedModel, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Teachers' scores, student's scores, gradients; the teachers are the base model where there are adapters."""
    batch = pack(sequences, "shared")
    with torch.no_grad(), adapters_disabled(model) if hasattr(model, "peft_config") else nullcontext():
        teacher = model.score(batch, implementation="chunked").logprob
    model.zero_grad()
    student = model.score(batch, implementation="chunked").logprob
    (student * torch.linspace(-1, 1, len(student))).sum().backward()
    return teacher, student.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _check_equal(plain: PreTrainedModel, compiled: PreTrainedModel, batches: list[list[TokenSequence]]) -> None:
    for sequences in batches:
        expected, actual = _step(plain, sequences), _step(compiled, sequences)
        torch.testing.assert_close(actual[:2], expected[:2], atol=1e-5, rtol=0)
        assert actual[2].keys() == expected[2].keys()
        for name, value in expected[2].items():
            scale = max(1.0, value.abs().max().item())
            torch.testing.assert_close(actual[2][name], value, atol=2e-5 * scale, rtol=0)


@pytest.mark.parametrize(
    ("is_checkpointed", "has_adapters"),
    [(False, False), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((True, False), (True, True)))],
)
def test_scores_and_gradients_are_those_of_the_plain_model_without_compiling_again(
    is_checkpointed: bool, has_adapters: bool, batches: list[list[TokenSequence]]
) -> None:
    plain, compiled = (_policy(is_checkpointed, has_adapters) for _ in range(2))
    compile_layers(compiled, backend="eager")
    _check_equal(plain, compiled, batches[:1])
    num_graphs = counters["stats"]["unique_graphs"]
    assert num_graphs > 0
    _check_equal(plain, compiled, batches[1:])
    assert counters["stats"]["unique_graphs"] == num_graphs
    assert len(counters["graph_break"]) == 1  # our attention, with its loop over the segments
    assert "varlen_attention" in next(iter(counters["graph_break"]))


@pytest.mark.slow
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_so_they_are_with_generated_code(is_checkpointed: bool, batches: list[list[TokenSequence]]) -> None:
    plain, compiled = (_policy(is_checkpointed, has_adapters=True) for _ in range(2))
    compile_layers(compiled)
    _check_equal(plain, compiled, batches)


def test_names_weights_and_generation_stay_as_they_are(batches: list[list[TokenSequence]]) -> None:
    plain = _policy(is_checkpointed=False, has_adapters=False)
    compiled = RandomPolicy(**SIZES, compile=True).load_model()
    expected = plain.state_dict()
    assert list(compiled.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in compiled.state_dict().items())
    ids = torch.tensor([batches[1][0].shareable_ids])
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    assert torch.equal(compiled.eval().generate(ids, **options), plain.eval().generate(ids, **options))
    assert not counters["stats"]["unique_graphs"]
