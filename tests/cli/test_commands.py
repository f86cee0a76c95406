"""The command line as a user meets it: where it matters in processes of its own, always in folders of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from sgsd_lightning.cli import main
from tests.support.tiny_runs import start

REPOSITORY = Path(__file__).resolve().parents[2]


def sgsd(*arguments: str, folder: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `sgsd` in a folder, on one thread."""
    environment = {
        **os.environ,
        **variables,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "COLUMNS": "200",
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "kernels")])
    command = [sys.executable, "-c", "import sys; from sgsd_lightning.cli import main; sys.exit(main())", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    if check:
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result


@pytest.fixture
def run_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration over files in ``tmp_path``: tiny random model, eight problems, a bank of three pairs."""
    problems = [{"id": f"p{i}", "problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(8)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)) + "\n")
    bank = {
        "general_skills": [
            {"skill_id": f"gen_{i}", "title": f"T{i}", "principle": f"P{i}", "when_to_apply": f"W{i}"} for i in range(3)
        ],
        "common_mistakes": [
            {"mistake_id": f"err_{i}", "description": f"D{i}", "why_it_happens": f"Y{i}", "how_to_avoid": f"H{i}"}
            for i in range(3)
        ],
    }
    (tmp_path / "bank.json").write_text(json.dumps(bank))
    source = {"class_path": "sgsd_lightning.data.JsonlProblems", "init_args": {"path": "problems.jsonl"}}
    sampling = {"max_new_tokens": 6}
    config = {
        "seed_everything": 1,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 4,
            "accumulate_grad_batches": 2,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": "run",
        },
        "checkpoint": {"every_n_train_steps": 1},
        "rollout_table": {"every_n_steps": 1},
        "model": {
            "class_path": "sgsd_lightning.module.SelfDistillation",
            "init_args": {
                "policy": {
                    "class_path": "sgsd_lightning.policy.RandomPolicy",
                    "init_args": {"hidden_size": 32, "num_layers": 1, "intermediate_size": 64},
                },
                "contexts": {
                    "class_path": "sgsd_lightning.contexts.SkillPairs",
                    "init_args": {"bank": "bank.json", "num_contexts": 2},
                },
                "objective": {
                    "class_path": "sgsd_lightning.objectives.GatedPolarity",
                    "init_args": {"stance_threshold": 0.0},
                },
                "verifier": {
                    "class_path": "sgsd_lightning.verifiers.MathAnswer",
                    "init_args": {"truncated_rollouts": "failure"},
                },
                "rollouts": {"class_path": "sgsd_lightning.rollouts.SingleTurn", "init_args": {"sampling": sampling}},
                "evaluation": {"group_size": 2, "sampling": sampling},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {
            "class_path": "sgsd_lightning.data.ProblemDataModule",
            "init_args": {"batch_size": 2, "train": source, "validation": source},
        },
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return path


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return weights


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(run_config: Path) -> None:
    folder = run_config.parent
    for arguments in (["--trainer.default_root_dir=whole"], ["--trainer.max_steps=2"], ["--ckpt_path", "last"]):
        fit = start(folder, *arguments)
        assert fit.wait() == [0], fit.said()
    whole, resumed = (
        weights_of(folder / "whole/checkpoints/last.ckpt"),
        weights_of(folder / "run/checkpoints/last.ckpt"),
    )
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name
    rows = [json.loads(line) for line in (folder / "whole/rollouts.jsonl").read_text().splitlines()]
    again = [json.loads(line) for line in (folder / "run/rollouts.jsonl").read_text().splitlines()]
    assert again == rows
    assert [row["step"] for row in rows] == [step for step in (1, 2, 3, 4) for _ in range(4)]
    first = weights_of(next(iter((folder / "run/checkpoints").glob("step-*.ckpt"))))
    assert first.keys() == whole.keys()


def test_one_configuration_serves_every_command(run_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_config.parent / "run"
    checkpoint = "run/checkpoints/last.ckpt"
    assert main(["fit", "--config", "run.yaml", "--trainer.max_steps=1"]) == 0
    audit = (run / "prompt_audit.txt").read_text()
    assert "== teacher prompt" in audit
    assert "No warnings." in audit
    assert main(["validate", "--config", "run.yaml", f"--ckpt_path={checkpoint}", "--trainer.limit_val_batches=1"]) == 0
    assert main(["test", "--config", "run.yaml"]) == 0
    told = capsys.readouterr().out
    assert "\navg@k " in told
    assert "wrote run/test.json" in told
    assert len((run / "evaluation.jsonl").read_text().splitlines()) == 32
    assert main(["predict", "--config", "run.yaml"]) == 0
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [row["problem_id"] for row in predictions[:3]] == ["p0", "p0", "p1"]
    assert main(["audit-prompts", "--config", "run.yaml"]) == 0
    assert "== student prompt" in capsys.readouterr().out
    assert main(["export", "--config", "run.yaml", "--folder=exported", f"--ckpt_path={checkpoint}"]) == 0
    exported = AutoModelForCausalLM.from_pretrained("exported").state_dict()
    trained = {name.removeprefix("model."): value for name, value in weights_of(Path(checkpoint)).items()}
    assert torch.equal(exported["model.embed_tokens.weight"], trained["model.embed_tokens.weight"])


def test_print_config_is_a_configuration_that_says_the_same(
    run_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for name in ("run.yaml", "printed.yaml"):
        with pytest.raises(SystemExit) as exit_info:
            main(["fit", "--config", name, "--print_config"])
        assert exit_info.value.code == 0
        printed.append(capsys.readouterr().out)
        Path("printed.yaml").write_text(printed[-1])
    assert printed[0] == printed[1]
    assert yaml.safe_load(printed[0])["model"]["init_args"]["objective"]["init_args"]["gate_temperature"] == 1.0


MODEL = "--model.init_args"
DATA = "--data.init_args"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ([f"{MODEL}.contexts.init_args.bank=nowhere.json"], "skill bank nowhere.json does not exist"),
        ([f"{MODEL}.contexts.init_args.num_contexts=9"], "contexts.num_contexts = 9, but bank.json has 3 skills"),
        ([f"{MODEL}.objective.init_args.gate_temperature=0"], "gate_temperature must be above 0; got 0"),
        ([f"{MODEL}.prompts.max_prompt_tokens=5"], "train prompts exceed prompts.max_prompt_tokens = 5"),
        ([f"{MODEL}.samplings_per_prompt=5"], "samplings_per_prompt"),
        (
            [f"{MODEL}.rollouts.init_args.sampling.sampling_top_p=1.5"],
            "sampling.sampling_top_p must be in (0, 1]; got 1.5",
        ),
        ([f"{DATA}.train.init_args.path=nowhere.jsonl"], "problem file nowhere.jsonl does not exist"),
        ([f"{DATA}.batch_size=9"], "needs at least 9 training problems; there are 8"),
        (["--trainer.default_root_dir=/proc/nowhere"], "trainer.default_root_dir /proc/nowhere cannot be written"),
        (["--ckpt_path=last"], "--ckpt_path last: there is no"),
        (["--config=nowhere.yaml"], "--config nowhere.yaml: no such file, and no shipped configuration of that name"),
    ],
)
def test_bad_input_gets_one_clear_error_and_no_traceback(
    run_config: Path, capsys: pytest.CaptureFixture[str], override: list[str], message: str
) -> None:
    assert exit_status("fit", "--config", "run.yaml", *override) == 2
    told = capsys.readouterr().err
    assert "sgsd: error:" in told
    assert message in told
    last_words = told[told.index("sgsd: error:") :]
    assert "Traceback" not in last_words
    assert len(last_words.splitlines()) < 6


def exit_status(*arguments: str) -> int | str | None:
    """Of `main`, whether it returns or exits."""
    try:
        return main(list(arguments))
    except SystemExit as exit_info:
        return exit_info.code


def test_a_run_folder_is_not_overwritten(run_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = run_config.parent / "run/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"")
    assert main(["fit", "--config", "run.yaml"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_an_unknown_command_and_no_command_are_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["configs"]) == 0
    assert "sgsd_toy" in capsys.readouterr().out
    assert exit_status("train") == 2
    assert "sgsd: error:" in capsys.readouterr().err


def test_a_process_shows_an_error_without_a_traceback(run_config: Path) -> None:
    result = sgsd("fit", "--config", "nowhere", folder=run_config.parent, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("sgsd: error: --config nowhere: no such file")
    assert "Traceback" not in result.stderr


def test_the_heads_implementation_is_settled_and_told_before_the_first_rollout(run_config: Path) -> None:
    fit = start(run_config.parent, "--trainer.max_steps=1")
    assert fit.wait() == [0], fit.said()
    assert "linear_logprob on cpu, float32: chunked (table: any device)" in fit.said()
    if torch.cuda.is_available():
        return
    other = (f"{MODEL}.scoring.head_implementation=triton", "--trainer.default_root_dir=other")
    refused = sgsd("fit", "--config", "run.yaml", *other, folder=run_config.parent, check=False, TRITON_INTERPRET="0")
    assert refused.returncode == 2
    assert "sgsd: error: scoring.head_implementation: implementation = 'triton' cannot do" in refused.stderr
    assert "Traceback" not in refused.stderr


LORA = '{"rank": 2, "alpha": 4}'


def test_a_lora_run_keeps_adapters_alone_resumes_and_exports(run_config: Path) -> None:
    common = ["--config", "run.yaml", f"--model.init_args.policy.init_args.lora={LORA}"]
    last = run_config.parent / "run/checkpoints/last.ckpt"
    assert main(["fit", *common, "--trainer.max_steps=1"]) == 0
    names = weights_of(last).keys()
    assert names
    assert all("lora_" in name for name in names)
    assert main(["fit", *common, "--trainer.max_steps=2", "--ckpt_path=last"]) == 0
    assert main(["export", *common, "--folder=merged", f"--ckpt_path={last}"]) == 0
    assert main(["export", *common, "--folder=adapter", f"--ckpt_path={last}", "--adapter=adapter"]) == 0
    assert (run_config.parent / "adapter/adapter_config.json").is_file()
    merged = AutoModelForCausalLM.from_pretrained("merged").state_dict()
    assert not any("lora" in name for name in merged)


def test_frozen_teachers_and_dropped_rollouts_train_on(run_config: Path) -> None:
    overrides = [
        "--model.init_args.teacher_weights=sgsd_lightning.policy.FrozenTeacher",
        "--model.init_args.verifier.init_args.truncated_rollouts=dropped",
        "--model.init_args.rollouts.init_args.group_size=2",
    ]
    assert main(["fit", "--config", "run.yaml", "--trainer.max_steps=1", *overrides]) == 0
    metrics = next((run_config.parent / "run/metrics").glob("version_*/metrics.csv")).read_text()
    assert "rollout/dropped_frac" in metrics
    assert "nan" not in metrics
