"""The folder of `sgsd export`: complete, or known as ours and completed by the same export."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgsd_lightning.cli.export import NOTE, _filled, _known


def fill(folder: Path, weights: str = "w") -> None:
    with _filled(folder, f'{{"weights": "{weights}"}}') as staging:
        (staging / "templates").mkdir()
        for name in ("config.json", "model.safetensors", "templates/chat.jinja"):
            (staging / name).write_text(weights)


def fill_twice(folder: Path) -> None:
    """Fails once something is written."""
    with _filled(folder, "other") as staging:
        (staging / "config.json").write_text("other")
        (staging / "templates").mkdir()
        (staging / "templates").mkdir()


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


WHOLE = dict.fromkeys(("config.json", "model.safetensors", "templates/chat.jinja"), "w") | {NOTE: '{"weights": "w"}'}


@pytest.mark.parametrize("num_moved", [0, 1, 2])
def test_a_kill_between_two_files_leaves_what_the_same_export_completes(
    num_moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left = tmp_path / "new" / "out", num_moved
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fill(folder)
    assert len(content(folder)) == num_moved + 1
    assert content(folder).items() <= WHOLE.items()
    assert _known(folder) == {"weights": "w"}
    fill(folder)
    assert content(folder) == WHOLE
    assert list(folder.parent.iterdir()) == [folder]


def test_an_export_that_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    fill(folder)
    for name in ("out", "never"):
        with pytest.raises(FileExistsError):  # "templates" is made twice
            fill_twice(tmp_path / name)
        assert list(tmp_path.iterdir()) == [folder]
        assert content(folder) == WHOLE
