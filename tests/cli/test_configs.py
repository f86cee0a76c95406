"""Every shipped configuration parses into what it says, and the paper's numbers stand in the paper's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import (
    method_configs,
    resolve_config,
    resolve_config_arguments,
    scale_configs,
    shipped_configs,
)


def printed(name: str, capsys: pytest.CaptureFixture[str], *others: str) -> dict:
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", "--config", name, *[f"--config={other}" for other in others], "--print_config"])
    assert exit_info.value.code == 0
    content: dict = yaml.safe_load(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_a_shipped_configuration_parses_from_any_folder(
    name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert printed(name, capsys)["model"]["class_path"] == "sgsd_lightning.module.SelfDistillation"


@pytest.mark.parametrize(("name", "size"), [("1.7b", "1.7B"), ("4b", "4B"), ("8b", "8B")])
def test_the_papers_numbers_stand_in_its_configuration(
    name: str, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed(f"sgsd_qwen3_{name}", capsys)
    trainer, model, data = config["trainer"], config["model"]["init_args"], config["data"]["init_args"]
    policy, contexts = model["policy"]["init_args"], model["contexts"]["init_args"]
    assert policy["model_name_or_path"] == f"Qwen/Qwen3-{size}"
    assert (policy["lora"]["rank"], policy["lora"]["alpha"]) == (64, 128)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert list(policy["lora"]["target_modules"]) == modules
    assert model["optimizer"]["init_args"]["lr"] == 5e-6
    assert (trainer["gradient_clip_val"], trainer["max_steps"]) == (0.1, 200)
    assert trainer["devices"] * data["batch_size"] * trainer["accumulate_grad_batches"] == 16
    sampling = {"sampling_temperature": 1.1, "sampling_top_p": 0.95, "sampling_top_k": 20, "max_new_tokens": 1024}
    assert sampling.items() <= model["sampling"].items()
    assert contexts["num_contexts"] == 8
    assert contexts["weighting"] == "softmax"
    assert contexts["retriever"]["init_args"]["model_name"] == "Qwen/Qwen3-Embedding-0.6B"
    objective = {"gate_temperature": 1.0, "log_ratio_clip": 3.0, "stance_threshold": 0.05, "support_top_k": -1}
    assert objective.items() <= model["objective"]["init_args"].items()
    prompts = model["prompts"]["init_args"] if "init_args" in model["prompts"] else model["prompts"]
    assert prompts["student_template_args"] == {"enable_thinking": False}
    assert prompts["teacher_template_args"] == prompts["evaluation_template_args"] == {"enable_thinking": True}
    evaluation = model["evaluation"]
    assert evaluation["samples_per_problem"] == 12
    assert {"sampling_temperature": 1.0, "sampling_top_p": 0.95, "max_new_tokens": 38912}.items() <= evaluation[
        "sampling"
    ].items()
    assert model["verifier"]["init_args"]["truncated_rollouts"] == "failure"
    assert model["train_eos"] is False


@pytest.mark.parametrize("scale", sorted(scale_configs()))
def test_the_number_of_processes_is_a_matter_of_trainer_keys(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(yaml.safe_load(scale_configs()[scale].read_text())) == {"trainer"}
    alone, laid_over = printed("sgsd_qwen3_1.7b", capsys), printed("sgsd_qwen3_1.7b", capsys, scale)
    trainer = laid_over.pop("trainer")
    alone.pop("trainer")
    assert laid_over == alone
    rollouts = trainer["devices"] * trainer["num_nodes"] * trainer["accumulate_grad_batches"]
    assert rollouts * laid_over["data"]["init_args"]["batch_size"] == 16
    assert trainer["max_steps"] == 200


@pytest.mark.parametrize("place", range(len(method_configs())))
def test_a_method_is_laid_over_a_configuration(place: int, capsys: pytest.CaptureFixture[str]) -> None:
    method = sorted(method_configs())[place]
    base = ("sgsd_toy", "sgsd_qwen3_1.7b")[place % 2]
    alone, laid_over = yaml.safe_load(shipped_configs()[base].read_text()), printed(base, capsys, method)
    said = yaml.safe_load(method_configs()[method].read_text())
    assert set(said) <= {"model", "bank_maintenance"}
    for name, value in said["model"]["init_args"].items():
        found = laid_over["model"]["init_args"][name]
        for key, setting in value.get("init_args", {}).items() if isinstance(value, dict) else ():
            if key != "objectives":
                assert found["init_args"][key] == setting
    assert alone["trainer"].items() <= laid_over["trainer"].items()


@pytest.mark.parametrize("method", ["grpo_kl", "opsd", "sgsd_grpo"])
def test_a_method_trains(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a random model: what counts is that its parts fit together."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=sgsd_toy", f"--config=method/{method}"]
    arguments += ["--model.init_args.policy=sgsd_lightning.policy.RandomPolicy"]
    arguments += ["--model.init_args.policy.init_args.hidden_size=32", "--data.init_args.batch_size=2"]
    arguments += ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *arguments]) == 0
    assert (tmp_path / "runs/sgsd_toy/checkpoints/last.ckpt").exists()


def test_names_files_and_flags_resolve(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    shipped = str(shipped_configs()["sgsd_toy"])
    assert resolve_config("sgsd_toy") == resolve_config("configs/sgsd_toy.yaml") == shipped
    assert resolve_config("scale/ddp") == resolve_config("configs/scale/ddp.yaml") == str(scale_configs()["scale/ddp"])
    assert resolve_config("sgsd_qwen3_1.7b") == str(shipped_configs()["sgsd_qwen3_1.7b"])
    assert resolve_config_arguments(["-c", "sgsd_toy", "--config=sgsd_toy", "--x=1"]) == [
        "-c",
        shipped,
        f"--config={shipped}",
        "--x=1",
    ]
    with pytest.raises(FileNotFoundError, match=r"no shipped configuration of that name; there are .*sgsd_toy"):
        resolve_config("elsewhere/sgsd_toy.yaml")
