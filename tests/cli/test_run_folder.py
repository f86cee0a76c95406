"""Where a run lives when its command line does not say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgsd_lightning.cli.configs import LAYERED, resolve_configs
from sgsd_lightning.cli.run_folder import run_folder, with_run_folder


def folder_of(*configs: str) -> str | None:
    return run_folder([file for config in configs for file in resolve_configs(config)])


def test_every_configuration_names_its_part() -> None:
    assert folder_of("sgsd_toy") == "runs/sgsd_toy"
    assert folder_of("sgsd_toy", "method/grpo") == "runs/sgsd_toy-grpo"
    assert folder_of("sgsd_paper", "method/grpo") == "runs/sgsd_paper-grpo"
    assert folder_of("sgsd_toy", "method/grpo", "method/skill_prompts") == "runs/sgsd_toy-grpo-skill_prompts"
    assert run_folder([]) is None


@pytest.mark.parametrize("short", LAYERED)
def test_a_short_name_and_what_it_stands_for_are_one_run(short: str) -> None:
    assert folder_of(short) == folder_of(*LAYERED[short]) == f"runs/{short}"
    assert folder_of(short, "scale/fsdp2") == f"runs/{short}-fsdp2"


def test_a_file_of_ones_own_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("mine/v1.5.yaml", "sgsd_toy.yml"):
        Path(name).write_text("{}")
    assert run_folder(["mine/v1.5.yaml"]) == "runs/v1.5"
    assert folder_of("sgsd_qwen3_1.7b", "sgsd_toy.yml") == "runs/sgsd_qwen3_1.7b-sgsd_toy"


def test_the_folder_comes_first_so_that_all_else_overrides_it() -> None:
    (toy,) = resolve_configs("sgsd_toy")
    flag = "--trainer.default_root_dir=runs/sgsd_toy"
    for arguments in ([f"--config={toy}", "--x=1"], ["--x=1", "-c", toy], ["--config", toy]):
        assert with_run_folder(arguments) == [flag, *arguments]
    assert with_run_folder(["--help"]) == ["--help"]
