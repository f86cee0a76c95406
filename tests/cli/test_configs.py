"""Every shipped configuration parses into what it says, and the paper's numbers stand in the paper's configuration."""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import (
    LAYERED,
    all_configs,
    overlay_configs,
    resolve_config,
    resolve_config_arguments,
    resolve_configs,
    shipped_configs,
)
from sgsd_lightning.cli.run_folder import run_folder

METHODS, SCALES = overlay_configs("method"), overlay_configs("scale")


@lru_cache
def printed(*names: str) -> str:
    """What configurations laid over one another come to, as YAML; parsed once, since several tests ask for the same."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as exit_info:
        main(["fit", *[f"--config={name}" for name in names], "--print_config"])
    assert exit_info.value.code == 0
    return text.getvalue()


def settings_of(*names: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(printed(*names))
    return content


@pytest.mark.parametrize("name", sorted([*shipped_configs(), *LAYERED]))
def test_a_shipped_configuration_parses_from_any_folder(
    name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    content = yaml.safe_load(printed.__wrapped__(name))  # not what another folder gave
    assert content["model"]["class_path"] == "sgsd_lightning.module.SelfDistillation"


@pytest.mark.parametrize(("name", "size"), [("1.7b", "1.7B"), ("4b", "4B"), ("8b", "8B")])
def test_the_papers_numbers_stand_in_its_configuration(name: str, size: str) -> None:
    config = settings_of(f"sgsd_qwen3_{name}")
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
    assert sampling.items() <= model["rollouts"]["init_args"]["sampling"].items()
    assert contexts["num_contexts"] == 8
    assert contexts["weighting"] == "softmax"
    assert contexts["retriever"]["init_args"]["model_name"] == "Qwen/Qwen3-Embedding-0.6B"
    objective = {"gate_temperature": 1.0, "log_ratio_clip": 3.0, "stance_threshold": 0.05, "support_top_k": -1}
    assert objective.items() <= model["objective"]["init_args"].items()
    prompts = model["prompts"]["init_args"] if "init_args" in model["prompts"] else model["prompts"]
    assert prompts["student_template_args"] == {"enable_thinking": False}
    assert prompts["teacher_template_args"] == prompts["evaluation_template_args"] == {"enable_thinking": True}
    evaluation = model["evaluation"]
    assert evaluation["group_size"] == 12
    assert model["rollouts"]["init_args"]["group_size"] == 1
    assert {"sampling_temperature": 1.0, "sampling_top_p": 0.95, "max_new_tokens": 38912}.items() <= evaluation[
        "sampling"
    ].items()
    assert model["verifier"]["init_args"]["truncated_rollouts"] == "failure"
    assert model["scoring"]["train_eos"] is False
    assert trainer["default_root_dir"] == f"runs/sgsd_qwen3_{name}"


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_the_number_of_processes_is_a_matter_of_trainer_keys(scale: str) -> None:
    assert set(yaml.safe_load(SCALES[scale].read_text())) == {"trainer"}
    alone, laid_over = settings_of("sgsd_qwen3_1.7b"), settings_of("sgsd_qwen3_1.7b", scale)
    trainer = laid_over.pop("trainer")
    alone.pop("trainer")
    assert laid_over == alone
    rollouts = trainer["devices"] * trainer["num_nodes"] * trainer["accumulate_grad_batches"]
    assert rollouts * laid_over["data"]["init_args"]["batch_size"] == 16
    assert trainer["max_steps"] == 200


def assert_says(found: Any, said: Any, where: str) -> None:
    """Every setting of a file stands in what it came to; lists of parts also have their defaults."""
    if isinstance(said, dict):
        for name, value in said.items():
            assert_says(found[name], value, f"{where}.{name}")
    elif isinstance(said, list):
        assert len(found) == len(said), where
        for one, other in zip(found, said, strict=True):
            assert_says(one, other, where)
    else:
        assert found == said, where


@pytest.mark.parametrize("place", range(len(METHODS)))
def test_a_method_is_laid_over_a_configuration(place: int) -> None:
    method = sorted(METHODS)[place]
    base = ("sgsd_toy", "sgsd_paper")[place % 2]
    alone, laid_over = yaml.safe_load(shipped_configs()[base].read_text()), settings_of(base, method)
    said = yaml.safe_load(METHODS[method].read_text())
    assert set(said) <= {"model", "bank_maintenance"}
    for part, content in said.items():
        assert_says(laid_over[part], content, part)
    assert alone["trainer"].items() <= laid_over["trainer"].items()
    assert laid_over["trainer"]["default_root_dir"] == run_folder([*resolve_configs(base), *resolve_configs(method)])


@pytest.mark.parametrize("method", ["grpo_kl", "opsd", "sgsd_grpo"])
def test_a_method_trains(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a random model: what counts is that its parts fit together."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=sgsd_toy", f"--config=method/{method}"]
    arguments += ["--model.init_args.policy=sgsd_lightning.policy.RandomPolicy"]
    arguments += ["--model.init_args.policy.init_args.hidden_size=32", "--data.init_args.batch_size=2"]
    arguments += ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *arguments]) == 0
    assert (tmp_path / f"runs/sgsd_toy-{method}/checkpoints/last.ckpt").exists()


def test_names_files_and_flags_resolve(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    shipped = str(shipped_configs()["sgsd_toy"])
    assert resolve_config("sgsd_toy") == resolve_config("configs/sgsd_toy.yaml") == shipped
    assert resolve_config("scale/ddp") == resolve_config("configs/scale/ddp.yaml") == str(SCALES["scale/ddp"])
    assert resolve_config("model/qwen3_1.7b") == str(all_configs()["model/qwen3_1.7b"])
    assert resolve_config_arguments(["-c", "sgsd_toy", "--config=sgsd_toy", "--x=1"]) == [
        f"-c={shipped}",
        f"--config={shipped}",
        "--x=1",
    ]
    with pytest.raises(FileNotFoundError, match=r"no shipped configuration of that name; did you mean sgsd_toy\?"):
        resolve_config("elsewhere/sgsd_toy.yaml")
    with pytest.raises(FileNotFoundError, match=r"no shipped configuration of that name; there are .*sgsd_toy, "):
        resolve_config("nothing.like.it")


def test_a_short_name_stands_for_files_laid_over_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, parts in LAYERED.items():
        paths = [str(all_configs()[part]) for part in parts]
        assert resolve_configs(name) == resolve_configs(f"configs/{name}.yaml") == paths
        for arguments in ([f"--config={name}"], ["--config", name], ["-c", name], [f"-c={name}"]):
            found = resolve_config_arguments([*arguments, "--x=1"])
            assert [argument.partition("=")[2] for argument in found] == [*paths, "1"]
    with pytest.raises(ValueError, match=r"sgsd_toy_growing stands for 2 configurations, one laid over the other: "):
        resolve_config("sgsd_toy_growing")
    assert settings_of("sgsd_toy_growing") == settings_of("sgsd_toy", "method/growing_bank")
    assert settings_of("sgsd_qwen3_8b") == settings_of("sgsd_paper", "model/qwen3_8b")
    # a file of that name in the working folder wins
    Path("sgsd_qwen3_8b").write_text("{}")
    assert resolve_configs("sgsd_qwen3_8b") == ["sgsd_qwen3_8b"]


def test_every_configuration_and_every_short_name_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    listed = dict(lines)
    assert set(listed) == {*all_configs(), *LAYERED}
    assert {"sgsd_toy", "sgsd_paper", "model/qwen3_4b", "method/opsd", "scale/ddp", "sgsd_toy_growing"} <= set(listed)
    assert listed["sgsd_qwen3_4b"] == "sgsd_paper + model/qwen3_4b"
    assert all(Path(listed[name]).is_file() for name in all_configs())


def test_a_short_name_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a random model, whose bank is updated after every step."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=sgsd_toy_growing", "--bank_maintenance.every_n_steps=1"]
    arguments += ["--model.init_args.verifier.init_args.truncated_rollouts=failure"]
    arguments += ["--model.init_args.policy=sgsd_lightning.policy.RandomPolicy"]
    arguments += ["--model.init_args.policy.init_args.hidden_size=32", "--data.init_args.batch_size=2"]
    arguments += ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *arguments, "--trainer.default_root_dir=growing"]) == 0
    assert (tmp_path / "growing/checkpoints/last.ckpt").exists()
    assert (tmp_path / "growing/skills/updates.jsonl").read_text().count("\n") == 1


def test_null_on_the_command_line_is_null_in_a_part() -> None:
    overrides = ["--model.init_args.prompts.system_text=null", "--data.init_args.train.init_args.limit=null"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        main(["fit", "--config=sgsd_math_smoke", *overrides, "--print_config"])
    content = yaml.safe_load(text.getvalue())
    assert content["model"]["init_args"]["prompts"]["init_args"]["system_text"] is None
    assert content["data"]["init_args"]["train"]["init_args"]["limit"] is None
