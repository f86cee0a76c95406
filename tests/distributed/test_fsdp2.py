"""FSDP2 on 2 processes through Lightning: what one process without sharding gives, for every way to train and teach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.policy import EmaTeacher, FrozenTeacher, LoraSettings, PeriodicTeacher
from sgsd_lightning.strategies import FSDP2Strategy
from sgsd_lightning.verifiers import Verifier
from tests.distributed.runs import ContextsForSome, Run, on_processes, outcome, outcomes
from tests.distributed.test_ddp import LONG_CONTEXTS, WITHOUT_TEACHERS, EmptyForSome, assert_equal
from tests.tiny import EvenSum, tiny_policy

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
        "frozen": Run(module=lambda: {"teacher_weights": FrozenTeacher()}, trainer=fsdp2),
        "ema, groups, accumulation": Run(
            module=lambda: {"teacher_weights": EmaTeacher(0.5), "samples_per_prompt": 2},
            trainer=lambda: {**fsdp2(), "accumulate_grad_batches": 2},
            max_steps=2,
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


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    """What a run came to on each of two processes."""
    folder = tmp_path_factory.mktemp("fsdp2")
    on_processes(2, outcomes, runs, folder, list(runs()))
    return lambda name: [torch.load(folder / f"{name}-2-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", list(runs()))
def test_sharding_changes_nothing(name: str, results: Callable[[str], list[dict[str, Any]]], tmp_path: Path) -> None:
    alone = outcome(runs()[name], 1, tmp_path, strategy="auto")
    assert any(gradient.any() for gradient in alone["gradients"][0].values())
    together = {key: value for rank in results(name) for key, value in rank["completions"].items()}
    assert together == alone["completions"]
    for rank in results(name):
        assert_equal(rank, alone)
