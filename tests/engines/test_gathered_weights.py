"""Generation from a model that FSDP2 has sharded over two processes, which sample different things."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from sgsd_lightning.distributed.gathered_weights import gathered_weights
from sgsd_lightning.engines import GenerationRequest, TransformersEngine, end_of_sequence_ids
from sgsd_lightning.types import SamplingSettings
from tests.support.runs import on_processes, whole
from tests.support.tiny import tiny_policy

NUM_REQUESTS = {"first": (2, 5), "second": (3, 0), "after a step": (1, 2)}
"""Of each process in each round."""
NUM_NEW_TOKENS = (9, 4)
"""Of each process."""
CASES = ("tied", "untied")


def test_processes_sample_what_they_would_sample_from_the_whole_model(results: Callable[[str, int], Any]) -> None:
    for case in CASES:
        for rank in range(2):
            found = results(case, rank)
            assert {name: len(rows) for name, rows in found["sharded"].items()} == {
                name: numbers[rank] for name, numbers in NUM_REQUESTS.items()
            }
            assert found["sharded"] == found["whole"]
            assert found["sharded"]["after a step"][0] != found["sharded"]["first"][0]


def test_training_after_generation_gives_the_gradients_of_the_whole_model(results: Callable[[str, int], Any]) -> None:
    for case in CASES:
        found = results(case, 0)
        expected = {
            name: (gradient + results(case, 1)["whole_gradients"][name]) / 2
            for name, gradient in found["whole_gradients"].items()
        }
        assert found["sharded_gradients"].keys() == expected.keys()
        for name, gradient in found["sharded_gradients"].items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


def test_modules_shard_and_reshard_as_before(results: Callable[[str, int], Any]) -> None:
    found = results("tied", 0)
    # the root keeps its weights by default, as torch has it in training; the layers were told True and False
    assert found["reshards"] == [found["reshards without generation"]] * 3
    assert found["reshards"][0] == {
        "": (True, False),
        "model.layers.0": (False, True),
        "model.layers.1": (False, False),
    }
    assert found["is_sharded"]
    assert found["num_recorded_passes"] == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Any]:
    """What a case came to on a process."""
    folder = tmp_path_factory.mktemp("gathered")
    on_processes(2, _run_cases, folder)
    return lambda case, rank: torch.load(folder / f"{case}-{rank}.pt", weights_only=False)


def _run_cases(world_size: int, folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    # a process that waits for another fails
    distributed.init_process_group("gloo", rank=rank, world_size=world_size, timeout=timedelta(seconds=30))
    for case in CASES:
        torch.save(_outcome(rank, is_tied=case == "tied"), folder / f"{case}-{rank}.pt")


def _outcome(rank: int, is_tied: bool) -> dict[str, Any]:
    unsharded, control = _model(is_tied), _sharded(_model(is_tied))
    model = _sharded(_model(is_tied))
    result: dict[str, Any] = {"sharded": {}, "whole": {}, "reshards": []}
    ids = torch.randint(0, 256, (2, 7), generator=torch.Generator().manual_seed(rank))
    _loss(control, ids).backward()
    result["reshards without generation"] = _reshards(control)

    def sample(name: str) -> None:
        result["sharded"][name] = _sample(model, rank, NUM_REQUESTS[name][rank])
        result["whole"][name] = _sample(unsharded, rank, NUM_REQUESTS[name][rank])

    sample("first")
    result["reshards"].append(_reshards(model))
    sample("second")
    result["reshards"].append(_reshards(model))
    with pytest.raises(RuntimeError, match="out of luck"), gathered_weights(model):
        raise RuntimeError("out of luck")
    result["reshards"].append(_reshards(model))
    result["is_sharded"] = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    result["num_recorded_passes"] = len(model._get_fsdp_state()._comm_ctx.post_forward_order)

    _loss(model, ids).backward()
    _loss(unsharded, ids).backward()
    result["sharded_gradients"] = {name: whole(value.grad) for name, value in model.named_parameters()}
    result["whole_gradients"] = {name: value.grad for name, value in unsharded.named_parameters()}
    for parameter in unsharded.parameters():
        distributed.all_reduce(gradient := parameter.grad.clone())
        parameter.grad = gradient / 2
    for weights in (model, unsharded):
        torch.optim.SGD(weights.parameters(), lr=1.0).step()
    sample("after a step")
    return result


def _model(is_tied: bool) -> PreTrainedModel:
    model = tiny_policy(tie_word_embeddings=is_tied).load_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def _sharded(model: PreTrainedModel) -> PreTrainedModel:
    for layer, reshards in zip(model.model.layers, (True, False), strict=True):
        fully_shard(layer, reshard_after_forward=reshards)
    fully_shard(model)
    return model


def _loss(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def _sample(model: PreTrainedModel, rank: int, num_requests: int) -> list[tuple[int, ...]]:
    stop_ids = end_of_sequence_ids(model, tiny_policy().load_tokenizer())
    requests = [
        GenerationRequest(prompt_ids=tuple(range(1, 4 + seed + rank)), seed=10 * rank + seed, stop_ids=stop_ids)
        for seed in range(num_requests)
    ]
    sampling = SamplingSettings(max_new_tokens=NUM_NEW_TOKENS[rank])
    completions = TransformersEngine(batch_size=2).generate(model, requests, sampling)
    return [completion.ids for completion in completions]


def _reshards(model: PreTrainedModel) -> dict[str, tuple[bool | None, bool]]:
    """Of every sharded module: whether torch decides, and whether it reshards after a forward pass."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()
            found[name] = (state._auto_reshard_after_forward, state._fsdp_param_group._reshard_after_forward)
    return found
