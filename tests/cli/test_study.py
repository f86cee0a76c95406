"""`sgsd study toy`: what it compares is what it says, it goes on, and its tables are of its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import resolve_config
from sgsd_lightning.cli.study import run_variant as running
from sgsd_lightning.cli.study.run_variant import StudyRun, make_bank
from sgsd_lightning.cli.study.summary import spread, summarise, tables
from sgsd_lightning.cli.study.variants import GROUPS, MISLEADING_SHARES, NUM_CONTEXTS, study_variants
from sgsd_lightning.skills import SkillBank
from sgsd_lightning.toy import load_toy_bank

ALL = study_variants(list(GROUPS))


def study_run(variant: Any, folder: Path, seed: int = 0) -> StudyRun:
    return StudyRun(variant=variant, seed=seed, max_steps=4, validate_every=2, out=folder)


def result(average: float, steps: int = 4) -> dict[str, Any]:
    scores = {
        "avg@k": average,
        "pass@k": 1.0,
        "majority@k": average,
        "completion_tokens_mean": 9.0,
        "truncated_frac": 0,
    }
    curve = [[step, average * step / steps] for step in range(1, steps + 1)]
    return {
        "plain": scores,
        "with_skill": scores,
        "seconds": 2.0,
        "tokens_sampled": 1000,
        "curves": dict.fromkeys(running.CURVES, curve),
    }


def test_every_variant_samples_as_many_rollouts_a_step() -> None:
    base = yaml.safe_load(Path(resolve_config("sgsd_toy")).read_text())
    for variant in (variant for variant in ALL if variant.is_trained):
        rollouts = base["model"]["init_args"]["rollouts"]["init_args"]
        samples, problems = rollouts["group_size"], base["data"]["init_args"]["batch_size"]
        for overlay in variant.overlays:
            laid_over = yaml.safe_load(Path(resolve_config(overlay)).read_text())["model"]["init_args"]
            samples = laid_over.get("rollouts", {}).get("init_args", {}).get("group_size", samples)
        for override in variant.overrides:
            problems = int(override.partition("=")[2]) if "batch_size" in override else problems
            samples = int(override.partition("=")[2]) if "group_size" in override else samples
        assert samples * problems == 32, variant.name


def test_banks_are_as_misleading_as_they_say() -> None:
    truths = [item["toy_truth"] for item in load_toy_bank()["general_skills"]]
    for variant in GROUPS["misleading share"]:
        assert variant.pairs is not None
        assert sum(truths[skill] == "misleading" for skill, _ in variant.pairs) == variant.setting * 4  # type: ignore[operator]
        assert all(truths[skill] == truths[mistake] for skill, mistake in variant.pairs)
    assert [variant.setting for variant in GROUPS["misleading share"]] == list(MISLEADING_SHARES)


def test_sixteen_teachers_read_sixteen_different_pairs() -> None:
    (pairs,) = {variant.pairs for variant in GROUPS["number of teachers"]}
    assert pairs is not None
    assert len(set(pairs)) == len(pairs) == max(NUM_CONTEXTS)
    bank = SkillBank.from_json(json.dumps(make_bank(pairs)))
    assert len(bank.general_skills) == len(bank.common_mistakes) == 16


def test_what_is_the_same_run_is_done_once(tmp_path: Path) -> None:
    folders = [study_run(variant, tmp_path).folder for variant in ALL]
    by_name = {(variant.group, variant.name): folder for variant, folder in zip(ALL, folders, strict=True)}
    shared = [
        [
            ("methods", "SGSD"),
            ("gate temperature", "1"),
            ("stance threshold", "0.05"),
            ("verifier noise", "0"),
            ("outcome baseline", "none"),
        ],
        [("methods", "GRPO"), ("verifier noise of GRPO", "0")],
        [("stance threshold", "0"), ("outcome baseline", "none, no threshold")],
    ]
    for same in shared:
        assert len({by_name[name] for name in same}) == 1
    assert len(set(folders)) == len(folders) - sum(len(same) - 1 for same in shared)


def test_the_command_trains_evaluates_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps of the real thing for one method; the others' results are there already."""
    monkeypatch.chdir(tmp_path)
    # the other tests of this process listen
    monkeypatch.setattr("sgsd_lightning.cli.terminal.quiet_console", lambda: None)
    arguments = ["study", "toy", "--out=out", "--seeds=0", "--jobs=1", "--max-steps=2"]
    for variant in (*GROUPS["methods"][:3], *GROUPS["methods"][4:]):
        run = StudyRun(variant=variant, seed=0, max_steps=2, validate_every=2, out=Path("out"))
        run.folder.mkdir(parents=True)
        (run.folder / "result.json").write_text(json.dumps(result(0.5)))
    assert main([*arguments, "--groups=methods"]) == 0
    said = capsys.readouterr().out
    assert "| OPSD |" in said
    summary = json.loads(Path("out/summary.json").read_text())
    rows = {row["name"]: row for row in summary["rows"]}
    assert list(rows) == ["base", "GRPO", "GRPO+Skill", "OPSD", "OPSD+Skill", "SGSD"]
    assert rows["OPSD"]["plain"]["avg@k"] != [0.5]
    assert rows["OPSD"]["tokens_sampled"][0] > 500
    assert [len(curve) for curve in rows["OPSD"]["curves"]["avg@k"]] == [1]
    assert rows["GRPO"]["plain"]["avg@k"] == [0.5]
    assert Path("out/study.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("runs/*/result.json")}
    assert main([*arguments, "--groups=methods"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("runs/*/result.json")} == before


def test_a_run_that_fails_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    runs = [study_run(variant, tmp_path) for variant in GROUPS["methods"]]
    for run, average in zip(runs[:2], (0.25, 0.75), strict=True):
        run.folder.mkdir(parents=True)
        (run.folder / "result.json").write_text(json.dumps(result(average)))
    summary = summarise(runs, ["sgsd", "study"])
    assert [row["name"] for row in summary["rows"]] == ["base", "GRPO"]
    assert "| GRPO | 0.750 | 0.750 |" in tables(summary)
    assert summary["rows"][1]["steps_to_target"] == [4]
    assert summary["rows"][0]["steps_to_target"] == [None]


def test_a_spread_has_its_interval() -> None:
    assert spread([0.8, 0.8, 0.8]) == "0.800 ± 0.000"
    assert spread([0.5]) == "0.500"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy", "--groups=methods,nothing"], "--groups must be among methods, ablations"),
        (["toy", "--seeds=a"], "--seeds must be whole numbers separated by commas; got 'a'"),
        (["toy", "--jobs=0"], "--jobs must be at least 1; got 0"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", *arguments]) == 2
    assert message in capsys.readouterr().err
