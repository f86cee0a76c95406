"""Ten steps in ten minutes, the first thing to run where a GPU can be had; each ends with a verdict in one sentence.

    python -m benchmarks.first_contact --minutes 10 --out runs/first_contact

Each step runs in a process of its own within a time of its own, so a crash or a hang ends that step only. Steps that
time no longer allows are skipped; the last are worth least. Without a GPU it says so and runs what can be run. It
writes first_contact.json and first_contact.md after every step. The exit status is 1 where a step found a fault.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.first_contact.attempts import attempt
from benchmarks.first_contact.contact import Entry, go_through
from benchmarks.first_contact.page import STEM, save
from benchmarks.first_contact.plan import PLAN, Step

DEFAULT_OUT = Path("runs/first_contact")
PROG = "python -m benchmarks.first_contact"


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through the plan; 0, 1 where something is wrong, 2 for bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        steps = _chosen(options.only)
        folder = _folder(options.out)
    except ValueError as error:
        print(f"first_contact: error: {error}", file=sys.stderr)
        return 2
    command = shlex.join([*PROG.split(), *arguments])

    def report(entries: Sequence[Entry]) -> None:
        save(options.out, command, options.minutes, entries)
        last = entries[-1]
        print(f"{last.step.number:>3}  {last.verdict.outcome:8}{last.step.title}: {last.verdict.sentence}", flush=True)

    try:
        entries = go_through(
            steps,
            options.minutes,
            lambda step, seconds, environment: attempt(step.probe, folder, seconds, environment),
            report,
        )
    except KeyboardInterrupt:
        print(f"interrupted; what was found is in {options.out / STEM}.md", file=sys.stderr)
        return 130
    print(f"written to {options.out / STEM}.md and .json")
    return int(any(entry.verdict.outcome == "bad" for entry in entries))


def _chosen(only: str) -> list[Step]:
    """The plan, or the steps that were asked for; the first is always among them, because the others depend on it."""
    wanted = [name for name in only.split(",") if name]
    known = {step.number for step in PLAN} | {step.number.rstrip("ab") for step in PLAN}
    for name in wanted:
        if name not in known:
            raise ValueError(f"--only {name}: there is no such step; there are {', '.join(s.number for s in PLAN)}")
    if not wanted:
        return list(PLAN)
    return [step for step in PLAN if step is PLAN[0] or {step.number, step.number.rstrip("ab")} & set(wanted)]


def _folder(out: Path) -> Path:
    """The folder of what the steps write, made with ``out``."""
    folder = out / "steps"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written to ({error.strerror}); give a folder") from None
    return folder


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give minutes above 0")
    return minutes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="for all steps; default: 10")
    parser.add_argument("--only", default="", metavar="STEP,...", help="these steps, as 3,6,9a; step 1 is always run")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="FOLDER", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
