"""Shared fixtures: where the project's external test data lies, and quiet, deterministic torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Without a GPU the Triton kernels run in Triton's interpreter, which must be chosen before they are defined.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONGEST = {"distributed", "cli"}
"""Folders of tests."""
FITS = {"callbacks", "cli", "docs", "examples", "planning"}
PROCESSES = {"distributed"}
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes take longest: they come first, so that workers end together.

    Folders whose tests train whole runs, or start processes, are marked for `make test-fast`, which leaves them out.
    """
    for item in items:
        folders = set(item.path.parts)
        if folders & FITS:
            item.add_marker(pytest.mark.fit)
        if folders & PROCESSES:
            item.add_marker(pytest.mark.processes)
    items.sort(key=lambda item: not LONGEST & set(item.path.parts))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real problems, traces and banks; the test skips where it is absent."""
    return _shared_folder("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of the authors' numbers; the test skips where it is absent."""
    return _shared_folder("golden")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of what went wrong in real use; the test skips where it is absent."""
    return _shared_folder("cases")


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name} beside the checkout, which is absent")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
