"""`sgsd study toy`: the paper's table at toy scale, ablations and sweeps, over several seeds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sgsd_lightning.cli.command_parser import CommandParser
from sgsd_lightning.cli.suggest import suggestion

WORLDS = ("toy",)
MAX_STEPS = 40
VALIDATE_EVERY = 4


def main(arguments: Sequence[str]) -> None:
    """Do every run that is not done, and write the tables.

    Raises:
        RuntimeError: when runs failed; the others are written.
    """
    parser = CommandParser(prog="sgsd study", description=__doc__)
    parser.add_argument("world", help="which world: toy, which is the only one so far")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="output folder; what it holds is kept")
    parser.add_argument("--seeds", default="0,1,2", help="of base model and training, separated by commas")
    parser.add_argument("--groups", help="tables to make, separated by commas; default: all of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side")
    parser.add_argument("--max-steps", type=int, default=MAX_STEPS, help="optimizer steps of every run")
    options = parser.parse_args(list(arguments))
    if options.world not in WORLDS:
        raise ValueError(f"sgsd study: there is no world {options.world}{suggestion(options.world, WORLDS)}")
    for name in ("jobs", "max_steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(options, name)}")
    from sgsd_lightning.cli.demo import parse_seeds
    from sgsd_lightning.cli.study.run_variant import StudyRun
    from sgsd_lightning.cli.study.schedule import do_runs
    from sgsd_lightning.cli.study.summary import draw, summarise, tables, write_summary
    from sgsd_lightning.cli.study.variants import GROUPS, study_variants
    from sgsd_lightning.cli.terminal import quiet_console
    from sgsd_lightning.toy import build_base_model
    from sgsd_lightning.toy.recipe import READS_SOLUTIONS

    groups = list(GROUPS) if options.groups is None else [group.strip() for group in options.groups.split(",")]
    variants = study_variants(groups)
    seeds = parse_seeds(options.seeds)
    quiet_console()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:  # once, before processes ask for it side by side
        build_base_model(seed, settings=READS_SOLUTIONS)
    runs = [
        StudyRun(
            variant=variant,
            seed=seed,
            max_steps=options.max_steps,
            validate_every=min(VALIDATE_EVERY, options.max_steps),
            out=options.out,
        )
        for variant in variants
        for seed in seeds
    ]
    failures = do_runs(runs, options.jobs, options.out / "log.txt")
    summary = summarise(runs, ["sgsd", "study", *arguments])
    write_summary(options.out, summary)
    draw(options.out, summary)
    console = Console()
    console.print(tables(summary), markup=False, soft_wrap=True)
    console.print(f"wrote {options.out}/summary.json, study.md and study.png")
    if failures:
        raise RuntimeError(f"{len(failures)} runs failed (see {options.out}/log.txt): {next(iter(failures.values()))}")
