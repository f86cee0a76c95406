"""What an earlier edition called otherwise is refused in one sentence that says what it is called now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import all_configs
from sgsd_lightning.cli.renamed import MOVED_FILES, RENAMED_CLASSES, RENAMED_SETTINGS, check_file, check_flag
from tests.support.tiny_runs import write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nested(name: str, value: Any) -> dict[str, Any]:
    """A configuration that sets a dotted name alone."""
    for key in reversed(name.split(".")):
        value = {key: value}
    found: dict[str, Any] = value
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main(["fit", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sgsd: error: ")
    return line.removeprefix("sgsd: error: ")


@pytest.mark.parametrize("old", list(RENAMED_SETTINGS))
def test_an_old_setting_is_told_its_new_name(old: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = RENAMED_SETTINGS[old]
    told = f"is of an earlier edition; it is now {new}"
    assert refused(capsys, "--config=run.yaml", f"--{old}=1") == f"--{old} {told}"
    assert refused(capsys, "--config=run.yaml", f"--{old}.inner=1") == f"--{old}.inner {told}.inner"
    assert refused(capsys, "--config=run.yaml", f"--{old}", "1") == f"--{old} {told}"
    Path("old.yaml").write_text(yaml.safe_dump(nested(old, 1)))
    assert refused(capsys, "--config=run.yaml", "--config=old.yaml") == f"old.yaml: {old} {told}"
    assert refused(capsys, "--config=run.yaml", "-c", "old.yaml") == f"old.yaml: {old} {told}"
    Path("old.yaml").write_text(yaml.safe_dump(nested(old, {"inner": 1})))
    assert refused(capsys, "--config=run.yaml", "--config=old.yaml") == f"old.yaml: {old} {told}"


@pytest.mark.parametrize("old", list(RENAMED_CLASSES))
def test_an_old_class_path_is_told_its_new_one(old: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = f"the class {old} is now {RENAMED_CLASSES[old]}"
    name = "model.init_args.rollouts"
    assert refused(capsys, "--config=run.yaml", f"--{name}={old}") == f"--{name}: {told}"
    assert refused(capsys, "--config=run.yaml", f"--{name}", old) == f"--{name}: {told}"
    Path("old.yaml").write_text(yaml.safe_dump(nested(name, {"class_path": old})))
    assert refused(capsys, "--config=run.yaml", "--config=old.yaml") == f"old.yaml: {name}.class_path: {told}"


def test_an_old_path_into_the_package_is_told_its_new_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(MOVED_FILES) == 1
    name = "model.init_args.contexts.init_args.bank"
    old, new = (f"package://sgsd_lightning.{place}/toy_bank.json" for place in ("data.toy", "toy"))
    assert refused(capsys, "--config=run.yaml", f"--{name}={old}") == f"--{name}: {old} is now {new}"
    assert refused(capsys, "--config=run.yaml", f"--{name}", old) == f"--{name}: {old} is now {new}"
    Path("old.yaml").write_text(yaml.safe_dump(nested(name, old)))
    assert refused(capsys, "--config=run.yaml", "--config=old.yaml") == f"old.yaml: {name}: {old} is now {new}"


def test_what_is_called_so_now_is_let_through(tmp_path: Path) -> None:
    for path in all_configs().values():
        check_file(path)
    for name in RENAMED_SETTINGS.values():
        check_flag(f"--{name.split(' ')[0]}=1")
    check_flag("--model.init_args.sampling_of_mine=1")
    check_flag("-c")
    for content in ("- [", "[1, 2]", "", "plain words"):
        (tmp_path / "other.yaml").write_text(content)
        check_file(tmp_path / "other.yaml")
    check_file(tmp_path / "nowhere.yaml")


def test_a_checkpoint_of_an_earlier_edition_is_told_where_its_parts_are_now(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config=run.yaml", "--trainer.max_steps=1"]) == 0
    last = Path("run/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    assert list(checkpoint["sgsd_lightning"]) == ["learners"]
    contexts = checkpoint["sgsd_lightning"]["learners"]["policy"]["contexts"]
    assert "bank" in contexts
    told = "sgsd_lightning.contexts is now sgsd_lightning.learners.policy.contexts"
    torch.save({**checkpoint, "sgsd_lightning": {"contexts": contexts}}, last)
    commands = (
        ["fit", "--config=run.yaml", "--ckpt_path=last"],
        ["export", "--config=run.yaml", "--folder=exported", "--ckpt_path=last"],
        ["skills", "audit", str(last)],
    )
    for command in commands:
        capsys.readouterr()
        assert main(command) == 2
        assert told in capsys.readouterr().err, command
    torch.save({key: value for key, value in checkpoint.items() if key != "sgsd_lightning"}, last)
    assert main(["fit", "--config=run.yaml", "--ckpt_path=last"]) == 2
    assert "this checkpoint was not written by sgsd_lightning" in capsys.readouterr().err
