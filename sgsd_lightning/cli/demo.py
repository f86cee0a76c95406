"""`sgsd demo`: the toy world from nothing to a trained student, with a table and a picture of what happened."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sgsd_lightning.cli.command_parser import CommandParser

CONFIG = "sgsd_toy"
GROWING = "sgsd+growing"
VALIDATED_EVERY = 10
"""Optimizer steps between two evaluations of the configuration."""
IMITATE = "--model.init_args.objective.init_args.polarity=imitate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of the demo's table: how the student is trained, if at all, and how it is evaluated."""

    name: str
    is_trained: bool
    overrides: tuple[str, ...] = ()
    config: str = CONFIG


def methods(skill_evaluation: str) -> tuple[Method, ...]:
    """Base, base with the best-ranked pair in its prompt, imitation of every teacher, SGSD, and SGSD with a bank that
    begins without a helpful pair and grows.
    """
    return (
        Method(name="base", is_trained=False),
        Method(name="base+skill", is_trained=False, overrides=(skill_evaluation,)),
        Method(name="imitate", is_trained=True, overrides=(IMITATE,)),
        Method(name="sgsd", is_trained=True),
        Method(name=GROWING, is_trained=True, config="sgsd_toy_growing"),
    )


def main(arguments: Sequence[str]) -> None:
    """Run the demo for each seed and write ``summary.json`` and ``demo.png`` into the output folder."""
    parser = CommandParser(prog="sgsd demo", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="output folder; its content is replaced")
    parser.add_argument("--seeds", default="0", help="seeds of base model and training, separated by commas")
    parser.add_argument(
        "--max-steps", "--steps", type=int, default=None, help="training steps; default: the configuration's"
    )
    options = parser.parse_args(list(arguments))
    seeds = parse_seeds(options.seeds)
    if options.max_steps is not None and options.max_steps < 1:
        raise ValueError(f"sgsd demo: --max-steps must be at least 1; got {options.max_steps}")
    _require_pictures()
    from sgsd_lightning.cli.terminal import quiet_console

    quiet_console()
    if options.out.exists():
        _remove_old_demo(options.out)
    summaries = {}
    for seed in seeds:
        folder = options.out if len(seeds) == 1 else options.out / f"seed-{seed}"
        summaries[seed] = run_seed(seed, folder, options.max_steps)
    if len(seeds) > 1:
        _write_json(
            options.out / "summary.json",
            {"seeds": {str(seed): summary for seed, summary in summaries.items()}},
        )


def run_seed(seed: int, folder: Path, max_steps: int | None) -> dict[str, object]:
    """Base model, training and evaluation of every method under one seed."""
    from sgsd_lightning.distributed.machine import describe_machine
    from sgsd_lightning.reports.demo_picture import draw_demo
    from sgsd_lightning.toy import build_base_model

    console = Console()
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    console.rule(f"[bold]toy world, seed {seed}")
    console.print("1. the base model")
    build_base_model(seed)
    results: dict[str, dict[str, float]] = {}
    for number, method in enumerate(methods(_skill_evaluation(folder)), start=2):
        console.print(f"{number}. {method.name}: {'train and evaluate' if method.is_trained else 'evaluate'}")
        results[method.name] = _run_method(method, seed, folder / method.name, max_steps)
    num_problems, num_samples = int(results["base"].pop("problems")), int(results["base"].pop("samples"))
    summary: dict[str, object] = {
        "problems": num_problems,
        "samples_per_problem": num_samples,
        "methods": {
            name: {key: round(result[key], 6) for key in ("avg@k", "pass@k")} for name, result in results.items()
        },
        "growing_bank": bank_changes(folder / GROWING),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": describe_machine(),
    }
    _write_json(folder / "summary.json", summary)
    draw_demo(folder, summary)
    _print_table(console, results, summary)
    console.print(f"wrote {folder / 'summary.json'} and {folder / 'demo.png'}")
    return summary


def _run_method(method: Method, seed: int, folder: Path, max_steps: int | None) -> dict[str, float]:
    """Train if the method trains, then evaluate on the held-out test problems."""
    from sgsd_lightning.cli.configs import resolve_configs
    from sgsd_lightning.cli.lightning_cli import run

    common = [
        *(f"--config={path}" for path in resolve_configs(method.config)),
        f"--seed_everything={seed}",
        f"--model.init_args.policy.init_args.seed={seed}",
        f"--trainer.default_root_dir={folder}",
        *method.overrides,
    ]
    if method.is_trained:
        cli = run(["fit", *common, *length(max_steps)])
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    else:
        cli = run(["test", *common, "--verbose=false"])
    metrics: Mapping[str, object] = cli.trainer.callback_metrics
    return {
        "avg@k": float(metrics["test/avg@k"]),  # type: ignore[arg-type]
        "pass@k": float(metrics["test/pass@k"]),  # type: ignore[arg-type]
        "completion_tokens": float(metrics["test/completion_tokens_mean"]),  # type: ignore[arg-type]
        "problems": len(cli.datamodule.problems["test"]),
        "samples": cli.model.evaluation.group_size,
    }


def length(max_steps: int | None) -> list[str]:
    """Overrides for a run of so many steps, which evaluates at its end at the latest: the picture draws that."""
    if max_steps is None:
        return []
    every = min(max_steps, VALIDATED_EVERY)
    return [f"--trainer.max_steps={max_steps}", f"--trainer.val_check_interval={every}"]


def bank_changes(run_folder: Path) -> dict[str, int]:
    """How many items a run's bank gained, admitted and dropped."""
    path = run_folder / "skills" / "updates.jsonl"
    updates = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return {name: sum(len(update[name]) for update in updates) for name in ("added", "admitted", "dropped")}


def _skill_evaluation(folder: Path) -> str:
    """An override that evaluates with the pair that retrieval ranks first in the prompt."""
    from sgsd_lightning.toy import SKILL_EVALUATION

    path = folder / "skill_evaluation.json"
    _write_json(path, SKILL_EVALUATION)
    return f"--model.init_args.evaluation.contexts={path}"


def _print_table(console: Console, results: Mapping[str, Mapping[str, float]], summary: Mapping[str, object]) -> None:
    k = summary["samples_per_problem"]
    table = Table(title=f"{summary['problems']} held-out problems, {k} samples each, T = 1")
    for column in ("method", f"avg@{k}", f"pass@{k}", "against base", "tokens"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, result in results.items():
        gain = result["avg@k"] - results["base"]["avg@k"]
        table.add_row(
            name,
            f"{result['avg@k']:.3f}",
            f"{result['pass@k']:.3f}",
            "" if name == "base" else f"{gain:+.3f}",
            f"{result['completion_tokens']:.1f}",
        )
    console.print(table)
    console.print(
        "the growing bank: {added} items written, {admitted} admitted, {dropped} dropped on evidence".format_map(
            summary["growing_bank"]  # type: ignore[arg-type]
        )
    )
    console.print(f"{summary['seconds']} s in all on {summary['machine']}", soft_wrap=True)
    console.print("what became of every item: sgsd skills audit RUN_FOLDER")


def parse_seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds must be whole numbers separated by commas; got {text!r}") from None


def _require_pictures() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("the demo's picture needs matplotlib: pip install 'sgsd-lightning[report]'") from None


def _remove_old_demo(folder: Path) -> None:
    """Only what an earlier demo wrote is removed."""
    names = ("base", "base+skill", "imitate", "sgsd", GROWING)
    for child in folder.iterdir():
        if child.is_dir() and (child.name in names or child.name.startswith("seed-")):
            shutil.rmtree(child)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
