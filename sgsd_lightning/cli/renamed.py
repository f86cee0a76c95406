"""Settings of earlier editions: refused with the name that replaces them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

RENAMED_SETTINGS = {
    "model.init_args.samples_per_prompt": "model.init_args.rollouts.init_args.group_size",
    "model.init_args.sampling": "model.init_args.rollouts.init_args.sampling",
    "model.init_args.student_contexts": "model.init_args.rollouts.init_args.guidance",
    "model.init_args.train_eos": "model.init_args.scoring.train_eos",
    "model.init_args.teacher_tokens_per_forward": "model.init_args.scoring.teacher_tokens_per_forward",
    "model.init_args.head_implementation": "model.init_args.scoring.head_implementation",
    "model.init_args.evaluation.samples_per_problem": "model.init_args.evaluation.group_size",
    "model.init_args.objective.init_args.normalise_advantages": (
        "model.init_args.objective.init_args.advantages (sgsd_lightning.objectives.GroupAdvantages, normalise)"
    ),
    "resumed_rows": "trim_logs",
    "process_watch": "watchdog",
}
"""Dotted names, old to new."""
RENAMED_CLASSES = {
    "sgsd_lightning.rollouts.TransformersEngine": (
        "sgsd_lightning.engines.TransformersEngine, under rollouts.init_args.engine of "
        "sgsd_lightning.rollouts.SingleTurn"
    ),
    "sgsd_lightning.data.ChatPrompts": "sgsd_lightning.prompts.ChatPrompts",
    "sgsd_lightning.strategies.FSDP2Strategy": "sgsd_lightning.training.FSDP2Strategy",
    "sgsd_lightning.data.toy.ToyPolicy": "sgsd_lightning.toy.ToyPolicy",
    "sgsd_lightning.data.toy.ToyProblems": "sgsd_lightning.toy.ToyProblems",
    "sgsd_lightning.data.toy.ConventionWriter": "sgsd_lightning.toy.ConventionWriter",
    "sgsd_lightning.writers.LanguageModelWriter": "sgsd_lightning.skills.growth.LanguageModelWriter",
    "sgsd_lightning.writers.TrainedPolicy": "sgsd_lightning.language_models.TrainedPolicy",
    "sgsd_lightning.writers.LocalModel": "sgsd_lightning.language_models.LocalModel",
    "sgsd_lightning.writers.EndpointModel": "sgsd_lightning.language_models.EndpointModel",
}
"""Class paths, old to new."""
MOVED_FILES = {"package://sgsd_lightning.data.toy/": "package://sgsd_lightning.toy/"}
"""Beginnings of paths, old to new."""


def check_flag(argument: str) -> None:
    """Refuse an option of an earlier edition.

    Raises:
        ValueError: naming the option and what it is now.
    """
    if not argument.startswith("--"):
        return
    name, _, value = argument.removeprefix("--").partition("=")
    _check(name, value, f"--{name}")


def check_file(path: Path) -> None:
    """Refuse a configuration of an earlier edition; what is not YAML is left to the parser.

    Raises:
        ValueError: naming the file, the setting and what it is now.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    for name, value in _flat(content):
        _check(name, value, f"{path}: {name}")


def _check(name: str, value: Any, where: str) -> None:
    for old, new in RENAMED_SETTINGS.items():
        if name == old or name.startswith(f"{old}."):
            raise ValueError(f"{where} is of an earlier edition; it is now {new}{name.removeprefix(old)}")
    if not isinstance(value, str):
        return
    if value in RENAMED_CLASSES:
        raise ValueError(f"{where}: the class {value} is now {RENAMED_CLASSES[value]}")
    for old, new in MOVED_FILES.items():
        if value.startswith(old):
            raise ValueError(f"{where}: {value} is now {new}{value.removeprefix(old)}")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if name:
            yield name, None
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(inner, name)
    else:
        yield name, value
