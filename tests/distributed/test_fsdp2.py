"""FSDP2 on 2 processes through Lightning: what one process without sharding gives, for every way to train and teach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import PreTrainedModel

from sgsd_lightning.engines import GenerationRequest, RolloutEngine, TransformersEngine
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import EmaTeacher, FrozenTeacher, LoraSettings, PeriodicTeacher
from sgsd_lightning.training.fsdp2 import FSDP2Strategy, check_strategy
from sgsd_lightning.types import Completion, SamplingSettings
from sgsd_lightning.verifiers import Verifier
from tests.distributed.test_ddp import (
    LONG_CONTEXTS,
    WITHOUT_TEACHERS,
    EmptyForSome,
    assert_equal,
    assert_equal_metrics,
)
from tests.support.runs import ContextsForSome, Run, on_processes, outcome, outcomes, tiny_run
from tests.support.tiny import EvenSum, tiny_completion, tiny_policy

LORA = LoraSettings(rank=2, alpha=4)


def fsdp2(**settings: Any) -> dict[str, Any]:
    """Gives up after a minute, so that processes which wait for one another fail."""
    return {"strategy": FSDP2Strategy(timeout_minutes=1.0, **settings)}


def dropping() -> Verifier:
    return EvenSum(truncated_rollouts="dropped")


def runs() -> dict[str, Run]:
    """Built in every process."""
    return {
        "tied": Run(trainer=lambda: {**fsdp2(), "gradient_clip_val": 0.1}, validates=True),
        "untied, checkpointed activations": Run(
            module=lambda: {"policy": tiny_policy(tie_word_embeddings=False, gradient_checkpointing=True)},
            trainer=lambda: fsdp2(reshard_after_forward=False),
        ),
        "ranks without anything": Run(
            module=lambda: {
                "rollouts": EmptyForSome(),
                "contexts": ContextsForSome(without=WITHOUT_TEACHERS, long=LONG_CONTEXTS),
                "verifier": dropping(),
                "teacher_tokens_per_forward": 200,
            },
            trainer=fsdp2,
            num_problems=11,
            drop_last=False,
        ),
        "rollouts layer by layer": Run(
            # a batch of one: processes with prompts and completions of unequal lengths take unequal numbers of passes
            module=lambda: {
                "engine": TransformersEngine(batch_size=1, gather_weights=False),
                "teacher_weights": FrozenTeacher(),
            },
            trainer=fsdp2,
            num_problems=9,
            drop_last=False,
            validates=True,
        ),
        "ema, groups, accumulation": Run(
            module=lambda: {"teacher_weights": EmaTeacher(0.5), "group_size": 2},
            trainer=lambda: {**fsdp2(), "accumulate_grad_batches": 2},
            max_steps=2,
            drop_last=False,  # the second step is short
        ),
        "periodic, untied": Run(
            module=lambda: {
                "teacher_weights": PeriodicTeacher(2),
                "policy": tiny_policy(tie_word_embeddings=False),
            },
            trainer=fsdp2,
        ),
        "lora, live, checkpointed activations": Run(
            module=lambda: {"policy": tiny_policy(lora=LORA, gradient_checkpointing=True)}, trainer=fsdp2
        ),
        "lora, frozen": Run(
            module=lambda: {"policy": tiny_policy(lora=LORA), "teacher_weights": FrozenTeacher()}, trainer=fsdp2
        ),
        "lora, ema": Run(
            module=lambda: {"policy": tiny_policy(lora=LORA), "teacher_weights": EmaTeacher(0.5)}, trainer=fsdp2
        ),
    }


class GivenCompletions(RolloutEngine):
    """Completions that depend on the request alone, for runs whose probabilities differ by rounding."""

    _version = 0

    def sync(self, model: PreTrainedModel, version: int) -> None:
        self._version = version

    def generate(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        return [replace(tiny_completion(random_ids(request)), policy_version=self._version) for request in requests]


def random_ids(request: GenerationRequest) -> list[int]:
    generator = torch.Generator().manual_seed(request.seed)
    return torch.randint(1, 256, (10,), generator=generator).tolist()


class CPUFSDPStrategy(FSDPStrategy):
    """Lightning's FSDP strategy, which it refuses on a CPU under its own name."""

    def _setup_model(self, model: torch.nn.Module) -> torch.nn.Module:
        return FullyShardedDataParallel(module=model, device_id=torch.device("cpu"), **self.kwargs)


def other_runs() -> dict[str, Run]:
    """Runs that are not equal to one process parameter by parameter."""
    # the sign of a stance would turn rounding into another loss
    given = {"engine": GivenCompletions(), "objective": GatedPolarity(polarity="imitate")}
    return {
        "bfloat16": Run(module=lambda: given, trainer=lambda: fsdp2(param_dtype="bfloat16"), max_steps=1),
        "bfloat16, lora, ema": Run(
            module=lambda: {**given, "policy": tiny_policy(lora=LORA), "teacher_weights": EmaTeacher(0.5)},
            trainer=lambda: fsdp2(param_dtype="bfloat16"),
            max_steps=1,
        ),
        "weights in bfloat16, lora, ema": Run(
            module=lambda: {
                **given,
                "policy": tiny_policy(lora=LORA, dtype="bfloat16", gradient_checkpointing=True),
                "teacher_weights": EmaTeacher(0.5),
            },
            trainer=lambda: fsdp2(param_dtype="bfloat16"),
            max_steps=1,
        ),
        "fsdp1": Run(trainer=lambda: {"strategy": CPUFSDPStrategy(timeout=timedelta(minutes=1))}),
    }


def all_runs() -> dict[str, Run]:
    """Built in every process."""
    return {**runs(), **other_runs()}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    """What a run came to on each of two processes."""
    folder = tmp_path_factory.mktemp("fsdp2")
    on_processes(2, outcomes, all_runs, folder, list(all_runs()))
    return lambda name: [torch.load(folder / f"{name}-2-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", list(runs()))
def test_sharding_changes_nothing(name: str, results: Callable[[str], list[dict[str, Any]]], tmp_path: Path) -> None:
    alone = outcome(runs()[name], 1, tmp_path, strategy="auto")
    assert any(gradient.any() for gradient in alone["gradients"][0].values())
    together = {key: value for rank in results(name) for key, value in rank["completions"].items()}
    assert together == alone["completions"]
    for rank in results(name):
        assert_equal(rank, alone)


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16, lora, ema", "weights in bfloat16, lora, ema"])
def test_mixed_precision_computes_in_half_and_reduces_in_full(
    name: str, results: Callable[[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    alone = outcome(all_runs()[name], 1, tmp_path, strategy="auto")
    found, other = results(name)
    assert found["losses"] == other["losses"] == pytest.approx(alone["losses"], rel=0.1)
    assert found["losses"] != alone["losses"]
    gradients = [torch.cat([g.flatten() for g in result["gradients"][0].values()]) for result in (found, alone)]
    assert gradients[0].dtype == torch.float32
    assert 1e-5 < (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 0.1


def test_lightnings_own_fsdp_gives_the_same_losses(
    results: Callable[[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    alone = outcome(all_runs()["fsdp1"], 1, tmp_path, strategy="auto")
    for rank in results("fsdp1"):
        assert_equal_metrics(rank, alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": CPUFSDPStrategy()}, "strategy fsdp flattens weights and takes a LiveTeacher only"),
        ({"strategy": CPUFSDPStrategy(auto_wrap_policy={torch.nn.Linear})}, "wait for one another; take fsdp2"),
        ({"precision": "bf16-true"}, "keep 32-true and set policy.dtype"),
    ],
)
def test_what_would_go_wrong_silently_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = Run(module=lambda: {"teacher_weights": EmaTeacher()})
    module, trainer, _ = tiny_run(run, 1, tmp_path, **settings)
    with pytest.raises(ValueError, match=message):
        check_strategy(trainer, module.teacher_weights)


def test_tensor_parallelism_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"tensor_parallel_size = 2: tensor parallelism is not supported: the head"):
        FSDP2Strategy(tensor_parallel_size=2)
