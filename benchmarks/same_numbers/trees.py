"""Two trees of this repository, and runs of `sgsd` by either in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.same_numbers.renames import Names
from benchmarks.same_numbers.runs import Run

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 900
_WHERE = "import importlib.util as u; print(*(u.find_spec(n).origin for n in ('sgsd_lightning', 'sgsd_kernels')))"


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout and the names that it uses."""

    label: str
    folder: Path
    names: Names

    def environment(self) -> dict[str, str]:
        """This process's environment, with the tree's packages first, one thread, no GPU and no remote logger."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SGSD_TEST_"))}
        return ours | {
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(self.folder / "kernels"))),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def check_imports(self) -> None:
        """See that Python takes both packages from this tree.

        Raises:
            RuntimeError: if an installed package comes first.
        """
        found = subprocess.run(
            [sys.executable, "-c", _WHERE], env=self.environment(), cwd="/", capture_output=True, text=True, check=True
        ).stdout
        for path in found.split():
            if not Path(path).resolve().is_relative_to(self.folder.resolve()):
                raise RuntimeError(f"the {self.label} tree {self.folder} is not what Python imports, but {path}")


def commit_of(revision: str, repository: Path = REPOSITORY) -> str:
    """The full hash of a revision's commit.

    Raises:
        ValueError: if the repository has no such revision.
    """
    command = ["git", "-C", str(repository), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    found = subprocess.run([*command, f"{revision}^{{commit}}"], capture_output=True, text=True)
    if found.returncode:
        raise ValueError(f"--against {revision}: {repository} has no such revision")
    return found.stdout.strip()


def this_tree() -> Tree:
    """The tree that this file lies in, as it is now, changes that are not committed included."""
    return Tree("new", REPOSITORY, Names.of(REPOSITORY))


@contextmanager
def other_tree(commit: str) -> Iterator[Tree]:
    """A checkout of a commit in a temporary folder, which is removed in the end."""
    parent = Path(tempfile.mkdtemp(prefix="same-numbers-"))
    folder = parent / "tree"
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    try:
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
        yield Tree("old", folder, Names.of(folder))
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], capture_output=True)
        shutil.rmtree(parent, ignore_errors=True)


def execute(run: Run, tree: Tree, folder: Path) -> str:
    """Call a run's commands by a tree in ``folder``, whose content is replaced.

    Returns:
        What went wrong, with the last line that the process wrote; empty if nothing did.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shared = folder.parent / "shared"  # configurations name ../shared
    if not shared.is_symlink() and (REPOSITORY.parent / "shared").exists():
        shared.symlink_to((REPOSITORY.parent / "shared").resolve())
    for number, command in enumerate(run.commands):
        outputs = [folder / f"output-{number}-{rank}.txt" for rank in range(run.num_processes)]
        for output, status in zip(outputs, _call(tree, command, folder, outputs), strict=True):
            if status:
                return f"failed by the {tree.label} tree with {status}: {_last_line(output)}"
    return ""


def _call(tree: Tree, command: Sequence[str], folder: Path, outputs: Sequence[Path]) -> list[int]:
    """Exit statuses of one process per output; all are ended if this process is interrupted or one takes too long."""
    arguments = [sys.executable, "-m", "sgsd_lightning", *tree.names.arguments(command)]
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        stack.callback(_end, processes)
        for variables, output in zip(_ranks(len(outputs)), outputs, strict=True):
            file = stack.enter_context(output.open("wb"))
            # a session of its own: Ctrl-C reaches this process alone, which then ends them
            processes.append(
                subprocess.Popen(
                    arguments,
                    env=tree.environment() | variables,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return [process.wait(TIMEOUT_SECONDS) for process in processes]


def _ranks(num_processes: int) -> list[dict[str, str]]:
    """Variables under which Lightning takes processes for ones that were started from outside."""
    if num_processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    return [{**common, "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _last_line(output: Path) -> str:
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "(no output)"
