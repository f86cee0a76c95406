"""The toy world with a base model that has read hardly anything, so that no test waits for its training."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgsd_lightning.toy.base_model import build_base_model
from sgsd_lightning.toy.recipe import BaseModelSettings

SHORT_RECIPE = BaseModelSettings(num_drill_steps=10, num_chat_steps=40, batch_size=16)
"""Seconds, and completions that end."""


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base model after fifty steps."""
    return build_base_model(0, tmp_path_factory.mktemp("toy"), SHORT_RECIPE)


@pytest.fixture
def quick_toy(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which `ToyPolicy` loads that model."""
    monkeypatch.setattr("sgsd_lightning.toy.world.build_base_model", lambda seed, settings: toy_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path
