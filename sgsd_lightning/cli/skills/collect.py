"""`sgsd skills collect`: memories of a policy, with a progress bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from sgsd_lightning.data import JsonlProblems, ProblemDataModule
from sgsd_lightning.evaluation.loading import load_policy
from sgsd_lightning.evaluation.memories import collect_memories, num_missing, without_evaluation_problems
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.skills.growth.memories import load_memories
from sgsd_lightning.training.preflight import keep_fitting_problems
from sgsd_lightning.training.usable_problems import keep_usable_problems
from sgsd_lightning.types import Problem

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def main(arguments: Sequence[str]) -> None:
    """Hand over to the commands that read a configuration."""
    from sgsd_lightning.cli.configs import resolve_config_arguments
    from sgsd_lightning.cli.quick_check import check_arguments

    resolved = resolve_config_arguments(list(arguments))
    check_arguments("collect_memories", resolved)
    from sgsd_lightning.cli.lightning_cli import run
    from sgsd_lightning.cli.terminal import announce_choices, silence_known_warnings

    announce_choices()
    silence_known_warnings()
    run(["collect_memories", *resolved])


def collect(
    trainer: Trainer,
    module: SelfDistillation,
    data: ProblemDataModule,
    out: Path,
    samples: int,
    limit: int | None,
    ckpt_path: str | None,
    evaluation_files: Sequence[str],
    dry_run: bool,
) -> None:
    """Sample, judge and write; the trainer says on which device.

    Raises:
        ValueError: for numbers out of range, several processes, or training problems that are all evaluation problems.
    """
    for name, value in (("samples", samples), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"sgsd skills collect: --{name} must be at least 1; got {value}")
    if trainer.world_size > 1:
        raise ValueError("sgsd skills collect runs in one process; set --trainer.devices=1")
    problems = _problems(data, evaluation_files)
    problems = keep_usable_problems(problems, module.learner.verifier, "train", data.unusable_problems)
    if dry_run:
        num = num_missing(problems[:limit], out, samples)
        print(f"would sample {num} trajectories of {len(problems[:limit])} problems into {out}; nothing was written")
        return
    load_policy(module, ckpt_path)
    problems = keep_fitting_problems(problems, module.learner.prompts, module.learner.tokenizer, "train")[:limit]
    model: Any = module.model
    model.to(trainer.strategy.root_device)
    num = num_missing(problems, out, samples)
    if num:
        with Progress() as progress:
            task = progress.add_task("trajectories", total=num)
            collect_memories(module, problems, out, samples, lambda done: progress.advance(task, done))
    outcomes = Counter(memory.is_success for memory in load_memories(out))
    print(f"{out}: {outcomes[True]} successes, {outcomes[False]} failures{'' if num else '; it was complete already'}")


def _problems(data: ProblemDataModule, evaluation_files: Sequence[str]) -> list[Problem]:
    data.setup("fit")
    if data.sources.get("test") is not None:
        data.setup("test")
    evaluation = [problem for split in ("validation", "test") for problem in data.problems.get(split, [])]
    evaluation += [problem for file in evaluation_files for problem in JsonlProblems(file).load()]
    train = list(data.problems["train"])
    kept = without_evaluation_problems(train, evaluation)
    if len(kept) < len(train):
        print(f"left out {len(train) - len(kept)} of {len(train)} training problems: they are evaluation problems")
    return kept
