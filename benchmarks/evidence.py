"""What evidence is worth in the toy world, where the truth about every item of the bank is known.

    python -m benchmarks.evidence --out benchmarks/results/evidence.json      (half an hour on one free core)

Banks: the toy bank (three helpful pairs, three misleading, two irrelevant), one of which half is misleading, one of
which all is. Half of the pairs serve each problem, so that it matters which. Retrieval: the paper's (lambda = 0),
evidence-aware (lambda = 10), and one that leaves out what misleads with confidence. Each under SGSD, which reverses
misleading teachers, and under imitation, which trusts every one.
For each: held-out accuracy after training, optimizer steps to reach an accuracy on the validation problems, and whether
the ledger ranks the bank's items as the truth does (the share of helpful-irrelevant, helpful-misleading and
irrelevant-misleading pairs in the right order; an item that no teacher showed is left out).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from sgsd_lightning.checkpoints.evidence import load_evidence
from sgsd_lightning.cli.configs import resolve_config
from sgsd_lightning.skills import EvidenceLedger, SkillBank
from sgsd_lightning.toy import load_toy_bank

SEEDS = (0, 1, 2)
TARGET = 0.7
"""avg@4 on the validation problems that a run is timed to."""
EVIDENCE = "--model.init_args.contexts.init_args.evidence"
BANKS = {"toy bank": None, "half misleading": (1, 2, 4, 5, 6, 7), "all misleading": (2, 4, 7)}
"""Numbers of the toy bank's pairs; None takes all."""
METHODS = {
    "lambda 0 (paper)": (),
    "lambda 10": (f"{EVIDENCE}.weight=10",),
    "pruned": (f"{EVIDENCE}.prune_misleading_above=0.1",),
}
OBJECTIVES = {"SGSD": (), "imitate": ("--model.init_args.objective.init_args.polarity=imitate",)}
TRUTH_RANK = {"helpful": 2, "irrelevant": 1, "misleading": 0}
HEADER = (
    "objective",
    "bank",
    "retrieval",
    "test avg@4 by seed",
    "mean",
    f"steps to {TARGET} by seed",
    "audit in order",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every combination and write what came of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--max-steps", type=int, default=40)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    origin = provenance("benchmarks.evidence", given, torch.device("cpu"))
    runs: list[dict[str, Any]] = []
    combinations = itertools.product(options.seeds, OBJECTIVES.items(), BANKS.items(), METHODS.items())
    for seed, (objective, rule), (bank, numbers), (method, overrides) in combinations:
        with tempfile.TemporaryDirectory() as folder:
            result = run_one(Path(folder), seed, numbers, (*rule, *overrides), options.max_steps)
        runs.append({"seed": seed, "objective": objective, "bank": bank, "method": method, **result})
        print(json.dumps({key: value for key, value in runs[-1].items() if key != "curve"}), flush=True)
        if options.out:  # a long study that is stopped has what it came to
            write(options.out, origin, runs, options.max_steps)
    print(table({"runs": runs}))


def write(path: Path, origin: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], max_steps: int) -> None:
    """The result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**origin, "max_steps": max_steps, "target": TARGET, "runs": list(runs)}
    path.write_text(json.dumps(content, indent=1) + "\n")


def run_one(
    folder: Path, seed: int, numbers: Sequence[int] | None, overrides: Sequence[str], max_steps: int
) -> dict[str, Any]:
    """One training run and its evaluation."""
    from sgsd_lightning.cli.lightning_cli import run

    bank = toy_bank(numbers)
    bank.save(folder / "bank.json")
    common = [
        f"--config={resolve_config('sgsd_toy')}",
        f"--seed_everything={seed}",
        f"--model.init_args.policy.init_args.seed={seed}",
        f"--model.init_args.contexts.init_args.bank={folder / 'bank.json'}",
        f"--model.init_args.contexts.init_args.num_contexts={max(1, len(bank.general_skills) // 2)}",
        f"--trainer.default_root_dir={folder / 'run'}",
        f"--trainer.max_steps={max_steps}",
        "--trainer.val_check_interval=2",
        "--trainer.enable_progress_bar=false",
        *overrides,
    ]
    cli = run(["fit", *common])
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    curve = validation_curve(folder / "run")
    _, ledger = load_evidence(folder / "run")
    return {
        "test_avg": round(float(cli.trainer.callback_metrics["test/avg@k"]), 4),
        "steps_to_target": next((step for step, value in curve if value >= TARGET), None),
        "audit_in_order": audit_order(bank, ledger),
        "curve": curve,
    }


def toy_bank(numbers: Sequence[int] | None) -> SkillBank:
    """The toy bank, or some of its pairs."""
    content = load_toy_bank()
    for key in ("general_skills", "common_mistakes"):
        if numbers is not None:
            content[key] = [content[key][number - 1] for number in numbers]
    return SkillBank.from_json(json.dumps(content))


def validation_curve(run_folder: Path) -> list[tuple[int, float]]:
    """(optimizer step, avg@4)."""
    from sgsd_lightning.reports.demo_picture import validation_curve as read

    return [(step, round(value, 4)) for step, value in read(run_folder)]


def audit_order(bank: SkillBank, ledger: EvidenceLedger) -> float | None:
    """Of all pairs of used items whose truth differs, the share that usefulness puts in the right order."""
    used = [
        (TRUTH_RANK[item.extra["toy_truth"]], ledger.usefulness(item.item_id).value)
        for item in bank.items
        # what is said of the minus does not sway this model: it is right about it anyway
        if ledger.num_uses(item.item_id) and item.extra["toy_subject"] != "minus"
    ]
    pairs = [(first, second) for first in used for second in used if first[0] > second[0]]
    right = sum(1.0 if first[1] > second[1] else 0.5 * (first[1] == second[1]) for first, second in pairs)
    return round(right / len(pairs), 4) if pairs else None


def table(content: Mapping[str, Any]) -> str:
    """One row a bank and method."""
    rows = []
    for key in itertools.product(OBJECTIVES, BANKS, METHODS):
        runs = [run for run in content["runs"] if (run["objective"], run["bank"], run["method"]) == key]
        if runs:
            order = [run["audit_in_order"] for run in runs if run["audit_in_order"] is not None]
            rows.append(
                (
                    *key,
                    " / ".join(f"{run['test_avg']:.3f}" for run in runs),
                    f"{statistics.mean(run['test_avg'] for run in runs):.3f}",
                    " / ".join(str(run["steps_to_target"] or "never") for run in runs),
                    f"{statistics.mean(order):.0%}" if order else "",
                )
            )
    return markdown_table(HEADER, rows)


if __name__ == "__main__":
    main()
