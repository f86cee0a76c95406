"""Settings that a run would take and misuse: refused before training, in one sentence that names them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from sgsd_lightning.callbacks.trainer import Trainer as OurTrainer
from sgsd_lightning.cli import main
from sgsd_lightning.contexts import NoContext, PlainPrompt
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import (
    Divergence,
    GatedPolarity,
    GroupAdvantages,
    PolicyGradient,
    SampledDivergence,
    WeightedSum,
)
from sgsd_lightning.policy import FrozenTeacher
from sgsd_lightning.training.compatibility import check_parts
from sgsd_lightning.training.optimization import check_numbers, configured
from sgsd_lightning.training.trainer_settings import check_trainer
from tests.support.runs import Run, data_of, tiny_run
from tests.support.tiny import tiny_module, tiny_policy


def refusal(folder: Path, trainer: dict[str, Any] | None = None, **parts: Any) -> str:
    """What a run is refused with before its first rollout."""

    def sample(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("training began")

    run = Run(module=lambda: parts)
    module, fitter, _ = tiny_run(run, 1, folder, **(trainer or {}))
    module.learner.sample = sample  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r".") as info:
        fitter.fit(module, datamodule=data_of(run, 1))
    assert "\n" not in str(info.value)
    return str(info.value)


class Worth(GroupAdvantages):
    """An advantage that does without siblings."""

    compares_siblings = False


def parts(module: SelfDistillation) -> None:
    check_parts(module.learner)


@pytest.mark.parametrize(
    "objective", [PolicyGradient, lambda: WeightedSum([GatedPolarity(), PolicyGradient()], [1, 1])]
)
def test_a_group_of_one_has_no_advantages(objective: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"rollouts.group_size is 1, and \w+ compares a rollout with the others"):
        parts(tiny_module(objective=objective(), group_size=1))
    parts(tiny_module(objective=objective(), group_size=2))
    parts(tiny_module(objective=PolicyGradient(advantages=Worth()), group_size=1))
    parts(tiny_module(objective=GatedPolarity(), group_size=1))


@pytest.mark.parametrize(
    "objective", [GatedPolarity, Divergence, SampledDivergence, lambda: PolicyGradient(kl_weight=1)]
)
def test_a_teacher_must_differ_from_the_student(objective: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"model.contexts is NoContext"):
        parts(tiny_module(objective=objective(), contexts=NoContext(), group_size=2))
    with pytest.raises(ValueError, match=r"model.contexts is PlainPrompt and model.teacher_weights LiveTeacher"):
        parts(tiny_module(objective=objective(), contexts=PlainPrompt(), group_size=2))
    parts(tiny_module(objective=objective(), contexts=PlainPrompt(), teacher_weights=FrozenTeacher(), group_size=2))
    parts(tiny_module(objective=PolicyGradient(), contexts=NoContext(), group_size=2))


def test_a_run_checks_its_parts_first(tmp_path: Path) -> None:
    assert "rollouts.group_size is 1" in refusal(tmp_path, objective=PolicyGradient(), group_size=1)


@pytest.mark.parametrize("objective", [GatedPolarity, Divergence])
def test_a_support_larger_than_the_vocabulary_is_refused(objective: Any, tmp_path: Path) -> None:
    told = refusal(tmp_path, objective=objective(support_top_k=262))
    assert told.startswith("objective.support_top_k is 262, and the model's vocabulary has 261 tokens")


def test_prompts_and_completions_must_have_positions(tmp_path: Path) -> None:
    told = refusal(tmp_path, policy=tiny_policy(max_positions=32))
    assert "sampling.max_new_tokens = 12 exceed the model's 32 positions" in told
    assert told.startswith("the prompt of problem 'p")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1e-3}, "model.optimizer: Invalid learning rate: -0.001"),
        ({"lr": math.nan}, r"model.optimizer: .*nan"),
        ({"lr": math.inf}, "model.optimizer: lr of AdamW must be finite and not negative; got inf"),
        ({"weight_decay": math.inf}, "model.optimizer: weight_decay of AdamW must be finite"),
        ({"eps": -1.0}, "model.optimizer: Invalid epsilon"),
        ({"betas": (0.9, 1.5)}, "model.optimizer: Invalid beta"),
    ],
)
def test_optimizers_have_sound_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured(lambda parameters: torch.optim.AdamW(parameters, **settings), None, [nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize(
    ("kind", "settings"), [(torch.optim.SGD, {"lr": math.nan}), (torch.optim.Adagrad, {"lr": math.inf})]
)
def test_so_they_do_where_torch_does_not_look(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model\.optimizer: lr of"):
        configured(lambda parameters: kind(parameters, **settings), None, [nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (torch.optim.LBFGS, "model.optimizer: LBFGS computes the loss several times per step"),
        (torch.optim.SparseAdam, "model.optimizer: SparseAdam takes sparse gradients alone"),
    ],
)
def test_optimizers_that_cannot_step_here_are_refused(kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured(kind, None, [nn.Parameter(torch.ones(2))])


def test_numbers_that_may_be_negative_may_be() -> None:
    check_numbers(torch.optim.Adafactor([nn.Parameter(torch.ones(2))]))  # beta2_decay -0.8, eps (None, 1e-3)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=2.0),
            "model.lr_scheduler: Starting",
        ),
        (torch.optim.lr_scheduler.ReduceLROnPlateau, "model.lr_scheduler: ReduceLROnPlateau waits for a metric"),
        (torch.optim.lr_scheduler.StepLR, "model.lr_scheduler: .*step_size"),
        (
            lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: -1.0),
            "model.lr_scheduler: lr of SGD",
        ),
    ],
)
def test_schedulers_are_told_of_by_name(scheduler: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured(lambda parameters: torch.optim.SGD(parameters, lr=0.1), scheduler, [nn.Parameter(torch.ones(2))])


def test_a_negative_learning_rate_stops_a_run_before_it_begins(tmp_path: Path) -> None:
    told = refusal(tmp_path, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=-1.0))
    assert told == "model.optimizer: Invalid learning rate: -1.0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches must be at least 1; got 0"),
        ({"accumulate_grad_batches": 1.5}, "trainer.accumulate_grad_batches must be a whole number; got 1.5"),
        ({"gradient_clip_val": -0.1}, "trainer.gradient_clip_val must be above 0, or null for no clipping; got -0.1"),
        (
            {"gradient_clip_val": math.nan},
            "trainer.gradient_clip_val must be above 0, or null for no clipping; got nan",
        ),
        ({"val_check_interval": 0}, "trainer.val_check_interval must be a whole number from 1 on, or a fraction"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch must be at least 1; got 0"),
        ({"log_every_n_steps": -1}, "trainer.log_every_n_steps must be at least 0; got -1"),
        ({"max_steps": 0}, "trainer.max_steps must be at least 1 to train anything, or -1 for no limit; got 0"),
        ({"max_epochs": 0}, "trainer.max_epochs must be at least 1 to train anything, or -1 for no limit; got 0"),
        ({"limit_train_batches": 0}, "trainer.limit_train_batches must be above 0 to train anything; got 0"),
    ],
)
def test_trainers_have_sound_numbers(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path, **settings
    )
    with pytest.raises(ValueError, match=message):
        check_trainer(trainer, is_fitting=True)
    if settings.keys() <= {"max_steps", "max_epochs", "limit_train_batches"}:
        check_trainer(trainer, is_fitting=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "gpuu"}, r"invalid accelerator name.*\(trainer: accelerator gpuu\)"),
        ({"accelerator": "tpu"}, r"\(trainer: accelerator tpu\)"),
        ({"accelerator": "cpu", "strategy": "ddpp"}, r"invalid strategy name.*strategy ddpp\)"),
        ({"accelerator": "cpu", "devices": "x"}, r"devices.*\(trainer: accelerator cpu, devices x\)"),
        ({"accelerator": "cpu", "devices": 0}, r"devices.*\(trainer: accelerator cpu, devices 0\)"),
        ({"accelerator": "cpu", "precision": "bf17"}, r"Precision 'bf17' is invalid.*precision bf17\)"),
        ({"accelerator": "cpu", "precision": "16-mixed"}, r"trainer\.precision 16-mixed is not there on a CPU; set 32"),
        ({"accelerator": "cpu", "strategy": "deepspeed"}, r"strategy deepspeed\)"),
    ],
)
def test_hardware_that_is_not_there_is_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as info:
        OurTrainer(default_root_dir=tmp_path, logger=False, **settings)
    assert "\n" not in str(info.value)


def test_trainers_with_sound_numbers_pass(tmp_path: Path) -> None:
    for settings in ({}, {"val_check_interval": 0.5}, {"val_check_interval": 3}, {"max_steps": -1, "max_epochs": -1}):
        trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, **settings)
        check_trainer(trainer, is_fitting=True)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "sgsd_toy", f"--seed_everything={seed}"]) == 2
    assert f"seed_everything must be in [0, 4294967295]; got {seed}" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(trainer: accelerator gpu, devices 2\)"):
        OurTrainer(default_root_dir=tmp_path, logger=False, accelerator="gpu", devices=2)
