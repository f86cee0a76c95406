"""Small training runs that are the same on any number of processes, and the machinery that starts them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, distributed, multiprocessing
from torch.distributed.tensor import DTensor

from sgsd_lightning.callbacks import OptimizerMetrics
from sgsd_lightning.data import ProblemDataModule, ProblemLoader, ProblemSource
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.training import EvaluationSettings, RunCallback, StepReport
from sgsd_lightning.types import Problem, Rollout, SamplingSettings, TeacherContext
from tests.support.forked import forkserver
from tests.support.tiny import PROBLEMS, NumberedContexts, tiny_module

NUM_STEPS = 3
SEED = 3
SENSITIVE = {"gate_temperature": 0.5, "log_ratio_clip": 0.02, "stance_threshold": 1e-6}
"""Settings under which a random model's tiny log-ratios matter."""


class TinyProblems(ProblemSource):
    """The first few of the tests' problems."""

    def __init__(self, num: int = 12) -> None:
        self.num = num

    def load(self) -> list[Problem]:
        return PROBLEMS[: self.num]


class ContextsForSome(NumberedContexts):
    """No teacher for some problems, long contexts for others."""

    def __init__(self, without: Iterable[str] = (), long: Iterable[str] = (), num_contexts: int = 3) -> None:
        super().__init__(num_contexts)
        self.without = set(without)
        self.long = set(long)

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        built = super().build(problems)
        return [
            []
            if problem.problem_id in self.without
            else [
                TeacherContext(text=context.text * (6 if problem.problem_id in self.long else 1), weight=context.weight)
                for context in contexts
            ]
            for problem, contexts in zip(problems, built, strict=True)
        ]


def problems_of_rank(rank: int, world_size: int, batch_size: int, step: int) -> list[str]:
    """Ids of the problems that a process is given for one step of the first epoch."""
    loader = ProblemLoader(PROBLEMS, batch_size, rank=rank, world_size=world_size, seed=SEED)
    return [problem.problem_id for problem in list(loader)[step]]


@dataclass
class Run:
    """One run: the parts of the module, of the trainer and of the data, given afresh whenever it is started."""

    module: Callable[[], dict[str, Any]] = dict
    trainer: Callable[[], dict[str, Any]] = dict
    global_batch: int = 4
    num_problems: int = 12
    drop_last: bool = True
    max_steps: int = NUM_STEPS
    perturb: float = 0.2
    """Random weights are this much larger than the initial ones, so that teachers disagree."""
    validates: bool = False
    updates_per_batch: int = 1


class Recorder(RunCallback):
    """Keeps what a run comes to: every step's loss and gradient, and what was sampled."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.rollouts: list[Rollout] = []
        self.metrics: dict[str, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, SelfDistillation)
        self.gradients.append(
            {
                name: whole(parameter.grad)
                for name, parameter in pl_module.model.named_parameters()
                if parameter.grad is not None
            }
        )

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self.losses.append(report.metrics["objective/loss"])
        self.rollouts += [judged.rollout for step in report.learner_steps for judged in step.record.judged]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


def whole(tensor: Tensor) -> Tensor:
    """A copy of a tensor, gathered from all processes if it is sharded."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def tiny_run(run: Run, world_size: int, folder: Path, **trainer: Any) -> tuple[SelfDistillation, Trainer, Recorder]:
    """Build module and trainer of a run on this process."""
    recorder = Recorder()
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": world_size,
        "max_steps": run.max_steps,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        **run.trainer(),
        **trainer,
    }
    settings["callbacks"] = [*settings.get("callbacks", ()), OptimizerMetrics(), recorder]
    parts = {
        "objective": GatedPolarity(**SENSITIVE),
        "seed": SEED,
        "evaluation": EvaluationSettings(group_size=2, sampling=SamplingSettings(max_new_tokens=8)),
        # an epsilon above the gradients' rounding, which AdamW would otherwise blow up to whole steps
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, eps=1e-5),
        **run.module(),
    }
    return perturbed(tiny_module(**parts), run.perturb), Trainer(**settings), recorder


def data_of(run: Run, world_size: int) -> ProblemDataModule:
    """The same global batches whatever the number of processes."""
    return ProblemDataModule(
        train=TinyProblems(run.num_problems),
        validation=TinyProblems(7),
        batch_size=run.global_batch // world_size,
        evaluation_batch_size=2,
        seed=SEED,
        drop_last=run.drop_last,
        updates_per_batch=run.updates_per_batch,
    )


def perturbed(module: SelfDistillation, scale: float) -> SelfDistillation:
    """Make the policy's source give weights under which teachers disagree; adapters that do something."""
    load = module.learner.source.load_model

    def load_model() -> Any:
        model = load()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        return model

    module.learner.source.load_model = load_model  # type: ignore[method-assign]
    return module


def outcome(run: Run, world_size: int, folder: Path, **trainer: Any) -> dict[str, Any]:
    """Train, and say what came of it; weights and gradients are gathered."""
    module, fitter, recorder = tiny_run(run, world_size, folder, **trainer)
    fitter.fit(module, datamodule=data_of(run, world_size))
    result = {
        "losses": recorder.losses,
        "gradients": recorder.gradients,
        "weights": {name: whole(value) for name, value in module.model.named_parameters()},
        "teacher": {name: whole(value) for name, value in module.teacher_weights.named_parameters()},
        "completions": {(r.problem.problem_id, r.sample_index): r.completion_ids for r in recorder.rollouts},
        "metrics": recorder.metrics,
    }
    if run.validates:
        fitter.limit_val_batches = 1.0
        (result["validation"],) = fitter.validate(module, datamodule=data_of(run, world_size), verbose=False)
    return result


def on_processes(world_size: int, task: Callable[..., Any], *arguments: Any) -> None:
    """Run ``task(world_size, *arguments)`` on new processes that Lightning takes for ones that it was started on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forkserver()
    multiprocessing.start_processes(
        _entry, args=(world_size, port, task, arguments), nprocs=world_size, start_method="forkserver"
    )


def _entry(rank: int, world_size: int, port: int, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0", OMP_NUM_THREADS="1"
    )
    torch.set_num_threads(1)
    try:
        task(world_size, *arguments)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def outcomes(world_size: int, runs: Callable[[], dict[str, Run]], folder: Path, names: Sequence[str]) -> None:
    """Each of the named runs, one after the other; every process writes what it came to."""
    for name in names:
        result = outcome(runs()[name], world_size, folder)
        torch.save(result, folder / f"{name}-{world_size}-{os.environ.get('LOCAL_RANK', 0)}.pt")
