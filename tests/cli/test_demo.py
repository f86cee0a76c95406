"""The demo from nothing to its files, with a few steps: what all of them show is measured by `make demo-seeds`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import resolve_configs, shipped_configs
from sgsd_lightning.cli.demo import VALIDATED_EVERY, length, methods
from sgsd_lightning.reports.demo_picture import draw_demo


@pytest.mark.slow
def test_the_demo_leaves_a_summary_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # the other tests of this process listen
    monkeypatch.setattr("sgsd_lightning.cli.terminal.quiet_console", lambda: None)
    assert main(["demo", "--out", "demo", "--max-steps", "10"]) == 0
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    assert list(summary) == ["problems", "samples_per_problem", "methods", "growing_bank", "seconds", "machine"]
    assert list(summary["methods"]) == ["base", "base+skill", "imitate", "sgsd", "sgsd+growing"]
    for result in summary["methods"].values():
        assert 0 <= result["avg@k"] <= result["pass@k"] <= 1
    assert summary["methods"]["sgsd"]["avg@k"] > summary["methods"]["base"]["avg@k"]
    assert summary["growing_bank"]["added"] > 0
    assert (tmp_path / "demo/demo.png").stat().st_size > 20_000


def test_a_short_demo_evaluates_at_its_end() -> None:
    toy = yaml.safe_load(shipped_configs()["sgsd_toy"].read_text())
    assert toy["trainer"]["val_check_interval"] == VALIDATED_EVERY
    assert length(None) == []
    assert length(3) == ["--trainer.max_steps=3", "--trainer.val_check_interval=3"]
    assert length(25)[1] == f"--trainer.val_check_interval={VALIDATED_EVERY}"


def test_no_steps_are_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "0", "--out", str(tmp_path / "demo")]) == 2
    assert "--max-steps must be at least 1; got 0" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_bad_seeds_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--seeds", "one"]) == 2
    assert "--seeds must be whole numbers separated by commas; got 'one'" in capsys.readouterr().err


def test_runs_too_short_for_an_evaluation_are_drawn(tmp_path: Path) -> None:
    """A demo of three steps; its runs evaluate every tenth."""
    (tmp_path / "sgsd").mkdir()
    teachers = [{"sources": ["gen_001"], "polarity": 1}]
    (tmp_path / "sgsd/rollouts.jsonl").write_text(json.dumps({"teachers": teachers}) + "\n")
    scores = {method.name: {"avg@k": 0.5, "pass@k": 0.5} for method in methods("--unused")}
    picture = draw_demo(tmp_path, {"methods": scores, "samples_per_problem": 4})
    assert picture.stat().st_size > 10_000


def test_every_method_of_the_demo_has_its_configurations() -> None:
    files = {method.name: resolve_configs(method.config) for method in methods("--unused")}
    assert [Path(path).stem for path in files["sgsd+growing"]] == ["sgsd_toy", "growing_bank"]
    assert all(Path(path).is_file() for paths in files.values() for path in paths)
