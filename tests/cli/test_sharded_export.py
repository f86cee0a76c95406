"""`sgsd export` of a folder of shards gives the folder that it gives of the same checkpoint in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import checkpoint as distributed_checkpoint

from sgsd_lightning.cli import main
from tests.support.tiny_runs import start, write_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one step."""
    write_run(tmp_path, max_steps=1)
    monkeypatch.chdir(tmp_path)
    started = start(tmp_path)
    assert started.wait() == [0], started.said()
    return tmp_path / "run"


def shard(file: Path, folder: Path) -> None:
    """The layout of Lightning's ModelParallelStrategy, written by torch's own writer."""
    checkpoint = torch.load(file, weights_only=True)
    tensors = {
        "state_dict": checkpoint.pop("state_dict"),
        "optimizer_0": checkpoint.pop("optimizer_states")[0]["state"],
    }
    distributed_checkpoint.save(tensors, checkpoint_id=folder, no_dist=True)
    torch.save(checkpoint, folder / "meta.pt")


def test_a_folder_of_shards_is_exported_as_a_file_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "checkpoints/last.ckpt"
    file = folder.rename(run / "checkpoints/file.ckpt")
    shard(file, folder)
    # as if a process had died while it put a new folder in its place
    folder = folder.rename(run / "checkpoints/last.ckpt.old")
    for name, checkpoint in (("from-file", file), ("from-folder", "last")):
        assert main(["export", "--config", "run.yaml", f"--folder={name}", f"--ckpt_path={checkpoint}"]) == 0
    expected, found = (load_file(f"{name}/model.safetensors") for name in ("from-file", "from-folder"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())

    (folder / "meta.pt").unlink()
    file.write_bytes(file.read_bytes()[:1000])
    for checkpoint, message in ((folder, "is not a complete checkpoint (no meta.pt)"), (file, "cannot be read: ")):
        assert main(["export", "--config", "run.yaml", "--folder=other", f"--ckpt_path={checkpoint}"]) == 2
        assert message in capsys.readouterr().err
