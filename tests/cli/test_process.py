"""`sgsd` in a shell: pipes whose reader leaves, Ctrl-C during an import, modules of the current folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sgsd_lightning.cli import process

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What pip writes for the console script: its own folder is first on the path, not the current one."""
    path = tmp_path / "bin" / "sgsd"
    path.parent.mkdir()
    path.write_text("import sys\nfrom sgsd_lightning.cli import main\nsys.exit(main())\n")
    return path


@pytest.mark.parametrize("arguments", ["configs", "--help", "fit --help", "help GatedPolarity"])
def test_a_reader_that_leaves_is_no_error(arguments: str, script: Path) -> None:
    """The pipe is closed before anything is written."""
    command = f"sleep 0.05; exec {sys.executable} {script} {arguments}"
    running = subprocess.Popen(
        ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == ""
    assert running.wait() == 0


def test_a_run_whose_reader_leaves_does_not_say_that_it_is_done() -> None:
    from sgsd_lightning.cli import _prints_only

    assert _prints_only(["fit", "--help"])
    assert _prints_only(["fit", "--config=x", "--print_config=skip_null"])
    assert _prints_only(["compare", "a", "b"])
    assert not _prints_only(["fit", "--config", "x"])
    assert not _prints_only(["audit-prompts"])


def test_a_broken_pipe_of_something_else_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sgsd_lightning import cli

    def break_off(command: str, rest: list[str]) -> None:
        raise BrokenPipeError(32, "Broken pipe", "a socket")

    monkeypatch.setattr(cli, "_dispatch", break_off)
    with pytest.raises(BrokenPipeError):
        cli.main(["configs"])


def test_an_interrupted_import_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nprint('importing', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept BaseException as error:\n    raise ImportError('broken') from error\n"
    )
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sgsd_lightning.cli import process\nprocess.end_interrupted_imports()\nimport slow_to_import"
    )
    command = [sys.executable, "-c", code]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "importing\n"
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=30)
    assert told == "sgsd: interrupted\n"
    assert running.returncode == 130


def test_elsewhere_ctrl_c_is_a_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    handlers: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.append(handler))
    process.end_interrupted_imports()
    (handler,) = handlers
    assert callable(handler)
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    process.end_interrupted_imports()
    assert len(handlers) == 1


def test_a_module_of_the_current_folder_is_found_after_all_others(script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "my_project.py").write_text(
        'class MyVerifier:\n    """Mine."""\n    def __init__(self, strict=True): ...\n'
    )
    (folder / "yaml.py").write_text("raise SystemExit('shadowed')\n")
    command = [sys.executable, str(script), "help", "my_project.MyVerifier"]
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Mine." in result.stdout
    assert "strict = true" in result.stdout
    command[-1] = "yaml.dumper.SafeDumper"
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert "shadowed" not in result.stderr
    assert result.returncode == 0, result.stderr


def test_the_current_folder_is_added_once_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/first"])
    process.find_modules_here()
    process.find_modules_here()
    assert sys.path == ["/first", os.getcwd()]
    monkeypatch.setattr(sys, "path", ["", "/first"])
    process.find_modules_here()
    assert sys.path == ["", "/first"]
