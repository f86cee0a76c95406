"""One run of a study: train one variant under one seed, evaluate it, and leave what came of it in a file."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgsd_lightning.cli.configs import resolve_config
from sgsd_lightning.cli.study.variants import CONTEXTS, MODEL, Pairs, Variant
from sgsd_lightning.files import atomically
from sgsd_lightning.toy import SKILL_EVALUATION, load_toy_bank

RESULT = "result.json"
EVALUATION_METRICS = ("avg@k", "pass@k", "majority@k", "completion_tokens_mean", "truncated_frac")
CURVES = {
    "avg@k": "val/avg@k",
    "reward": "rollout/reward_mean",
    "entropy": "rollout/student_entropy",
    "helpful_frac": "objective/helpful_frac",
    "misleading_frac": "objective/misleading_frac",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRun:
    """What one run of a study is made of."""

    variant: Variant
    seed: int
    max_steps: int
    validate_every: int
    out: Path
    """The study's folder."""

    @property
    def folder(self) -> Path:
        """Named by what the run depends on, so that groups which ask for the same share it."""
        v = self.variant
        made_of = repr((v.overlays, v.overrides, v.pairs, v.shows_skill, v.is_trained, self.max_steps))
        name = hashlib.sha256(made_of.encode()).hexdigest()[:10]
        return self.out / "runs" / f"{name}-seed-{self.seed}"

    @property
    def result(self) -> dict[str, Any] | None:
        """What came of it; None while it is to be done."""
        path = self.folder / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run_variant(run: StudyRun) -> None:
    """Train, evaluate on plain prompts and with the best-ranked pair in the prompt, and write the result.

    What a run left that was stopped half-way is removed: it takes about a minute, and begins anew.
    """
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    skill = _written(run.folder / "skill_prompts.json", SKILL_EVALUATION)
    common = _arguments(run)
    start = time.perf_counter()
    checkpoint = _train(run, common, skill) if run.variant.is_trained else None
    seconds = time.perf_counter() - start
    rows = list(_logged(run.folder))
    result = {
        "plain": _evaluate(common, checkpoint),
        "with_skill": _evaluate([*common, f"--model.init_args.evaluation.contexts={skill}"], checkpoint),
        "seconds": round(seconds, 1) if run.variant.is_trained else 0.0,
        "tokens_sampled": round(sum(float(row["tokens/rollout"]) for row in rows if row.get("tokens/rollout"))),
        "curves": {name: _curve(rows, column) for name, column in CURVES.items()},
    }
    with atomically(run.folder / RESULT) as file:
        file.write(json.dumps(result) + "\n")
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)


def _arguments(run: StudyRun) -> list[str]:
    """Of training and evaluation."""
    return [
        *(f"--config={resolve_config(name)}" for name in ("sgsd_toy", *run.variant.overlays)),
        f"--seed_everything={run.seed}",
        f"{MODEL}.policy.init_args.seed={run.seed}",
        # OPSD's teacher is shown a solution, and all methods begin from the same base model
        f"{MODEL}.policy.init_args.reads_solutions=true",
        f"--trainer.default_root_dir={run.folder}",
        "--trainer.enable_progress_bar=false",
        "--rollout_table.every_n_steps=0",
    ]


def _train(run: StudyRun, common: list[str], skill: Path) -> Path:
    from sgsd_lightning.cli.lightning_cli import run as run_command

    arguments = [
        *common,
        f"--trainer.max_steps={run.max_steps}",
        f"--trainer.val_check_interval={run.validate_every}",
        *run.variant.overrides,
    ]
    if run.variant.pairs is not None:
        arguments.append(f"{CONTEXTS}.bank={_written(run.folder / 'bank.json', make_bank(run.variant.pairs))}")
    if run.variant.shows_skill:
        arguments.append(f"{MODEL}.rollouts.init_args.guidance={skill}")
    run_command(["fit", *arguments])
    return run.folder / "checkpoints" / "last.ckpt"


def _evaluate(common: list[str], checkpoint: Path | None) -> dict[str, float]:
    from sgsd_lightning.cli.lightning_cli import run as run_command

    found = [] if checkpoint is None else [f"--ckpt_path={checkpoint}"]
    metrics: Mapping[str, Any] = run_command(["test", *common, "--verbose=false", *found]).trainer.callback_metrics
    return {name: round(float(metrics[f"test/{name}"]), 6) for name in EVALUATION_METRICS}


def make_bank(pairs: Pairs) -> dict[str, Any]:
    """A bank of the toy bank's items; one that serves in several pairs has an id for each."""
    toy = load_toy_bank()
    skills = [{**toy["general_skills"][skill], "skill_id": f"gen_{i:03}"} for i, (skill, _) in enumerate(pairs)]
    mistakes = [{**toy["common_mistakes"][place], "mistake_id": f"err_{i:03}"} for i, (_, place) in enumerate(pairs)]
    return {**toy, "general_skills": skills, "common_mistakes": mistakes}


def _logged(folder: Path) -> Iterator[dict[str, str]]:
    for file in sorted((folder / "metrics").glob("version_*/metrics.csv")):
        with file.open(newline="", encoding="utf-8") as lines:
            yield from csv.DictReader(lines)


def _curve(rows: list[dict[str, str]], column: str) -> list[tuple[int, float]]:
    """(optimizer step, value)."""
    return [(int(row["step"]) + 1, round(float(row[column]), 4)) for row in rows if row.get(column)]


def _written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path
