"""`sgsd evaluate`: many samples of each problem, kept as they are made, and what they come to."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sgsd_lightning.checkpoints.identity import (
    problem_fields_digest,
    problems_digest,
    prompts_digest,
    sampled_weights_digest,
)
from sgsd_lightning.cli.output import cell
from sgsd_lightning.cli.read_checkpoint import Source
from sgsd_lightning.data import ProblemDataModule, load_problem_set
from sgsd_lightning.evaluation.collection import collect_samples, missing_samples, samples_so_far, wanted_samples
from sgsd_lightning.evaluation.loading import load_policy
from sgsd_lightning.evaluation.samples import Sample
from sgsd_lightning.evaluation.scores import ProblemScore, SetScore, score_problems, score_sets
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.texts.shown import quote_cells
from sgsd_lightning.texts.strict_json import read_json
from sgsd_lightning.training.preflight import keep_fitting_problems
from sgsd_lightning.training.usable_problems import keep_usable_problems
from sgsd_lightning.types import Problem

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

SETTINGS_FILE = "evaluation.json"
COUNTED = ("prompts", "verifier", "evaluation", "seed")
"""Arguments of the model that a sample depends on, beside the weights."""


def evaluate(
    trainer: Trainer,
    module: SelfDistillation,
    data: ProblemDataModule,
    settings: Mapping[str, str],
    source: Source | None,
    out: Path,
    problems: str | None,
    samples: int | None,
    ckpt_path: str | None,
    shard: str,
) -> None:
    """Sample what is missing and write ``summary.json`` and ``problems.csv``; the trainer says on which device.

    ``summary.json`` names the checkpoint and the configuration.

    Raises:
        ValueError: for arguments out of range, several processes, or a folder that holds another evaluation.
    """
    num_samples = module.evaluation_rollouts.group_size if samples is None else samples
    if num_samples < 1:
        raise ValueError(f"sgsd evaluate: --samples must be at least 1; got {num_samples}")
    if trainer.world_size > 1:
        raise ValueError(
            "sgsd evaluate runs in one process: call it once a device with --trainer.devices=1 and --shard=0/4, "
            "--shard=1/4 and so on, into the same folder"
        )
    part = parse_shard(shard)
    usable = {
        name: keep_usable_problems(of_set, module.evaluation_verifier, name, data.unusable_problems)
        for name, of_set in _problem_sets(problems, data).items()
    }
    sets = _fitting(usable, module, ckpt_path)
    model: Any = module.model
    model.to(trainer.strategy.root_device)
    module.evaluation_rollouts.prepare()
    out.mkdir(parents=True, exist_ok=True)
    identity = {
        **settings,
        "weights": sampled_weights_digest(module.model),
        **{f"problems of {name}": problems_digest(of_set) for name, of_set in sets.items()},
        **{f"prompts of {name}": _shown_digest(module, of_set) for name, of_set in sets.items()},
    }
    _claim(out, identity)
    missing = missing_samples(wanted_samples(sets, num_samples, part), samples_so_far(out))
    name = "samples.jsonl" if part[1] == 1 else f"samples-{part[0]}of{part[1]}.jsonl"
    with _progress() as progress:
        task = progress.add_task("samples", total=len(missing), shown="")
        seen: list[bool] = []

        def on_sample(sample: Sample) -> None:
            seen.append(sample.is_correct)
            progress.update(task, advance=1, shown=f"{sum(seen) / len(seen):.3f} right so far")

        collect_samples(module, missing, out / name, on_sample)
    write_scores(out, [sample for sample in samples_so_far(out) if sample.index < num_samples], source)


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n`` with 0 <= i < n.

    Raises:
        ValueError: for anything else.
    """
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and int(first) < int(second):
        return int(first), int(second)
    raise ValueError(f"sgsd evaluate: --shard must be i/n with 0 <= i < n, such as 0/4; got {text!r}")


def evaluation_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """What samples depend on, of a configuration; how many of them there are is not part of it."""
    arguments = config["model"]["init_args"]
    counted = {name: arguments.get(name) for name in COUNTED}
    counted["evaluation"] = {
        name: value for name, value in (counted["evaluation"] or {}).items() if name != "group_size"
    }
    if isinstance(counted["prompts"], Mapping):  # a template's file may move; prompts are compared as they are read
        settings = dict(counted["prompts"].get("init_args") or {})
        settings.pop("chat_template", None)
        counted["prompts"] = {**counted["prompts"], "init_args": settings}
    return {f"model.{name}": json.dumps(value, sort_keys=True, default=str) for name, value in counted.items()}


def write_scores(out: Path, samples: Sequence[Sample], source: Source | None) -> None:
    """Print a table, and write ``summary.json`` and ``problems.csv``."""
    sets = score_sets(samples)
    told = {} if source is None else source.to_json()
    summary = {**told, "problem_sets": [{**asdict(score), "interval": list(score.interval)} for score in sets]}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with (out / "problems.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [entry.name for entry in fields(ProblemScore)])
        writer.writeheader()
        writer.writerows(quote_cells(asdict(score)) for score in score_problems(samples))
    Console().print(score_table(sets))
    print(f"wrote {out / 'summary.json'} and {out / 'problems.csv'}; every sample is in {out}/samples*.jsonl")


def score_table(sets: Sequence[SetScore]) -> Table:
    """For a terminal."""
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    columns = ("problems", "n x k", "avg@k", "95 %", "pass@k", "majority", "tokens", "cut", "answered")
    for column in columns:
        table.add_column(column, justify="left" if column == "problems" else "right", no_wrap=True)
    for score in sets:
        table.add_row(
            cell(score.problem_set),
            f"{score.num_problems} x {score.samples_per_problem}",
            f"{score.average:.3f}",
            f"{score.interval.low:.2f}..{score.interval.high:.2f}",
            f"{score.pass_at[score.samples_per_problem]:.3f}",
            f"{score.majority:.3f}",
            f"{score.mean_tokens:,.1f}",
            f"{score.truncated_frac:.1%}",
            f"{score.answer_found_frac:.1%}",
        )
    return table


def _problem_sets(value: str | None, data: ProblemDataModule) -> dict[str, list[Problem]]:
    """By name: those named on the command line, else the test problems of the configuration."""
    if value is None:
        if data.sources["test"] is None:
            raise ValueError("sgsd evaluate needs problems: give --problems, or set data.init_args.test")
        data.setup("test")
        return {"test": list(data.problems["test"])}
    sets: dict[str, list[Problem]] = {}
    for entry in (part.strip() for part in value.split(",") if part.strip()):
        name = Path(entry).name.removesuffix(".jsonl").removesuffix(".parquet")
        if name in sets:
            raise ValueError(f"sgsd evaluate: --problems names two sets {name!r}; their files need different names")
        sets[name] = load_problem_set(entry)
    if not sets:
        raise ValueError("sgsd evaluate: --problems names no problem set")
    return sets


def _fitting(
    sets: Mapping[str, list[Problem]], module: SelfDistillation, ckpt_path: str | None
) -> dict[str, list[Problem]]:
    """Load the weights, and keep the problems whose prompts fit."""
    load_policy(module, ckpt_path)
    return {
        name: keep_fitting_problems(problems, module.learner.prompts, module.learner.tokenizer, name)
        for name, problems in sets.items()
    }


def _shown_digest(module: SelfDistillation, problems: Sequence[Problem]) -> str:
    """Of the prompts as the model reads them, and of what contexts can show of the problems."""
    learner = module.learner
    prompts = [learner.prompts.evaluation(learner.tokenizer, problem) for problem in problems]
    return prompts_digest(prompts) + problem_fields_digest(problems)


def _claim(out: Path, identity: Mapping[str, str]) -> None:
    """Note what the folder's samples are of; refuse to add others."""
    path = out / SETTINGS_FILE
    if not path.exists():
        path.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        return
    known = read_json(path)
    if not isinstance(known, dict):
        raise ValueError(f"{path}: not the settings of an evaluation; write to another folder")
    different = [name for name in known.keys() | identity.keys() if known.get(name) != identity.get(name)]
    if different:
        raise ValueError(
            f"{out} holds samples of another evaluation; what differs: {', '.join(sorted(different))} (see {path}). "
            "Write to another folder, or resume it with the settings that it was begun with"
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
