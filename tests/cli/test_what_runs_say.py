"""What commands say of a run: in a file, from one run that all of these tests read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.endings import fit_ending, metrics_table
from tests.support.tiny_runs import start, write_run

EVALUATED = [
    "--data.init_args.validation=sgsd_lightning.data.JsonlProblems",
    "--data.init_args.validation.init_args.path=problems.jsonl",
    "--data.init_args.test=sgsd_lightning.data.JsonlProblems",
    "--data.init_args.test.init_args.path=problems.jsonl",
    "--trainer.limit_val_batches=1.0",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.enable_progress_bar=true",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of two steps in it."""
    folder = tmp_path_factory.mktemp("said")
    write_run(folder, max_steps=2, accumulate_grad_batches=5)
    started = start(folder, *EVALUATED)
    assert started.wait() == [0], started.said()
    (folder / "fit.txt").write_text(started.said())
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_fit_says_in_a_file_how_far_it_is_and_what_comes_next(folder: Path) -> None:
    said = (folder / "fit.txt").read_text()
    assert "\r" not in said
    assert "\x1b" not in said
    for noise in ("Epoch", "TPU", "GPU available", "Loading weights", "stopped:", "Tip"):
        assert noise not in said
    lines = said.splitlines()
    assert any(line.startswith("step 2/2  loss ") and "avg@k" in line for line in lines)
    assert lines[-4] == "run folder  run"
    assert lines[-3].startswith("best        avg@k 0 at step ")
    assert lines[-2:] == [
        "next        sgsd report run",
        "            sgsd evaluate --config run/config.yaml --ckpt_path best",
    ]


def test_the_configuration_in_the_run_folder_repeats_the_run(folder: Path) -> None:
    config = yaml.safe_load((folder / "run/config.yaml").read_text())
    assert config["trainer"]["default_root_dir"] == str(folder / "run")
    assert (config["checkpoint"]["dirpath"], config["best_checkpoint"]["dirpath"]) == (None, None)
    assert not {"ckpt_path", "weights_only"} & config.keys()  # evaluate and export read this file too
    started = start(folder, "--config=run/config.yaml", "--trainer.default_root_dir=again")
    assert started.wait() == [0], started.said()
    first, second = (Path(name, "rollouts.jsonl").read_text() for name in ("run", "again"))
    assert first == second
    assert not list(Path("run").rglob("version_1"))


def test_a_step_has_its_learning_rate_and_the_gradient_s_norm(folder: Path) -> None:
    header, *rows = (folder / "run/metrics/version_0/metrics.csv").read_text().splitlines()
    assert len(rows) == 2
    of_steps = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    # LinearLR begins at a third
    assert [float(row["optimizer/lr"]) for row in of_steps] == pytest.approx([0.01 / 3, 0.005])
    assert all(float(row["optimizer/grad_norm"]) > 0 for row in of_steps)
    assert of_steps[1]["val/avg@k"]


def test_an_evaluation_names_checkpoint_and_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    common = ["--config=run/config.yaml", "--ckpt_path=last"]
    assert main(["evaluate", *common, "--samples=1", "--out=same"]) == 0
    assert f"reads {folder}/run/checkpoints/last.ckpt (step 2; GatedPolarity, SkillPairs)" in caplog.text
    assert "other settings" not in caplog.text
    summary = json.loads(Path("same/summary.json").read_text())
    assert summary["checkpoint"] == {
        "file": str(folder / "run/checkpoints/last.ckpt"),
        "step": 2,
        "method": "GatedPolarity, SkillPairs",
    }
    assert summary["configuration"]["differs"] == []
    assert summary["configuration"]["method"] == "GatedPolarity, SkillPairs"
    assert [Path(file).name for file in summary["configuration"]["files"]] == ["config.yaml"]


def test_another_method_s_checkpoint_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = "--model.init_args.objective.init_args.polarity=imitate"
    assert main(["test", "--config=run/config.yaml", "--ckpt_path=last", other]) == 0
    warned = next(record.getMessage() for record in caplog.records if "other settings" in record.getMessage())
    assert 'polarity: "validated" in the checkpoint, "imitate" now' in warned


def test_who_wants_no_result_printed_is_told_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a study does, whose evaluations are of other settings on purpose."""
    other = "--model.init_args.objective.init_args.polarity=imitate"
    assert main(["test", "--config=run/config.yaml", "--ckpt_path=last", other, "--verbose=false"]) == 0
    assert not [record for record in caplog.records if record.name.startswith("sgsd_lightning.cli")]


def test_an_evaluation_prints_few_digits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--config=run/config.yaml", "--ckpt_path=best"]) == 0
    said = capsys.readouterr().out
    assert "avg@k" in said
    assert "wrote run/validate.json" in said
    assert not [word for line in said.splitlines() for word in line.split() if word.count(".") == 1 and len(word) > 24]
    written = json.loads(Path("run/validate.json").read_text())
    assert written["checkpoint"]["step"] == 1  # the earlier of equally good ones
    assert metrics_table({"avg@k": 0.12345678901234567, "n": 10.0}) == "avg@k  0.1235\nn      10"
    assert len(list(Path("run/metrics").iterdir())) == 1


def test_predictions_are_those_of_one_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert (
            main(["predict", "--config=run/config.yaml", "--ckpt_path=last", "--trainer.limit_predict_batches=1"]) == 0
        )
        assert "completions to run/predictions.jsonl" in capsys.readouterr().out
    rows = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert len({(row["problem_id"], row["sample_index"]) for row in rows}) == len(rows)


def test_an_export_takes_no_other_model_s_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = ["export", "--config=run/config.yaml", "--folder=model", "--ckpt_path=last"]
    assert main(trained) == 0
    assert "wrote weights and tokenizer to model: " in capsys.readouterr().out
    assert json.loads(Path("model/sgsd_export.json").read_text())["checkpoint"]["step"] == 2
    assert main(trained) == 0
    before = Path("model/model.safetensors").read_bytes()
    assert main(["export", "--config=run/config.yaml", "--folder=model"]) == 2
    assert "--folder model holds the export of" in capsys.readouterr().err
    assert Path("model/model.safetensors").read_bytes() == before
    shutil.copytree("model", "downloaded")
    Path("downloaded/sgsd_export.json").unlink()
    assert main(["export", "--config=run/config.yaml", "--folder=downloaded", "--ckpt_path=last"]) == 2
    assert "--folder downloaded holds another model (config.json)" in capsys.readouterr().err


def test_report_names_the_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["report", "run"]) == 0
    said = capsys.readouterr()
    assert "read run: run/checkpoints/last.ckpt (step 2; GatedPolarity, SkillPairs)" in said.out
    assert "other settings" not in said.err


def test_paths_are_words_of_a_command_line(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    said = fit_ending(run, None, has_test_problems=False)
    assert f"sgsd report '{run}'" in said
    assert f"sgsd export --config '{run}/config.yaml' --ckpt_path last --folder '{run}/model'" in said
    assert "best " not in said
