"""What a checkpoint says of the run that wrote it: its step, its method and its settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgsd_lightning.checkpoints.folders import recovered
from sgsd_lightning.checkpoints.identity import Identity, differences
from sgsd_lightning.checkpoints.reading import load_unsharded_part

PARTS = {"objective": "model.init_args.objective", "contexts": "model.init_args.contexts"}
"""Settings whose classes make a method."""
CLASS_PATH = ".class_path"
MEANT_TO_DIFFER = "model.init_args.evaluation"
"""Settings of how a policy is evaluated, which nothing was trained with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Where weights come from."""

    file: str
    step: int
    """Optimizer steps that were taken."""
    settings: Identity
    """By dotted name, each value as JSON; empty for a run from Python, which has no configuration."""

    @property
    def method(self) -> str:
        """Its objective and contexts, such as ``GatedPolarity, SkillPairs``."""
        return method_of(self.settings)

    def __str__(self) -> str:
        return f"{self.file} (step {self.step}; {self.method})"


def read_provenance(path: Path) -> Provenance:
    """Read what a checkpoint, a file or a folder of shards, says of itself.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    content = load_unsharded_part(recovered(path))
    return Provenance(file=str(path), step=int(content.get("global_step", 0)), settings=_settings(content))


def changed_settings(saved: Identity, now: Identity) -> list[str]:
    """Return one line per setting that differs; none where one side has no settings.

    Where a part is of another class, that is said, and not how the arguments of the two classes differ.
    """
    names = {name for name in saved.keys() | now.keys() if not f"{name}.".startswith(f"{MEANT_TO_DIFFER}.")}
    classes = {name for name in names if name.endswith(CLASS_PATH) and saved.get(name) != now.get(name)}
    replaced = tuple(f"{name.removesuffix(CLASS_PATH)}.init_args." for name in classes)
    names = {name for name in names if not name.startswith(replaced)}
    return differences(saved, now, names) if saved and now else []


def method_of(settings: Identity) -> str:
    """Return the classes of objective and contexts, with those inside a sum of objectives."""
    told = ", ".join(name for part in PARTS.values() if (name := _class_name(settings, part)))
    return told or "method unknown: its run had no configuration"


def _class_name(settings: Identity, part: str) -> str:
    outer = _short(json.loads(settings.get(f"{part}{CLASS_PATH}", '""')))
    inner = [
        _short(path)
        for name, value in settings.items()
        if name.startswith(f"{part}.init_args.")
        for path in _class_paths(json.loads(value) if isinstance(value, str) else value)
    ]
    return f"{outer}({', '.join(inner)})" if inner else outer


def _class_paths(value: Any) -> Iterator[str]:
    """Of parts in a list."""
    for entry in value if isinstance(value, list) else []:
        if isinstance(entry, Mapping) and "class_path" in entry:
            yield str(entry["class_path"])


def _short(path: str) -> str:
    return path.rpartition(".")[2]


def _settings(content: Mapping[str, Any]) -> Identity:
    """The resume guard's, by what it keeps: its name may be another's."""
    for state in content.get("callbacks", {}).values():
        if isinstance(state, Mapping) and {"settings", "contents"} <= state.keys():
            settings: Identity = json.loads(state["settings"])
            return settings
    return {}
