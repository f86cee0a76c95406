"""What changed its name between commits: the one place to complete after a refactoring.

Runs are written in the oldest names (`runs.py`) and results are compared under the newest ones, so that every map here
goes from an old name to its new one. A tree knows a generation of names if the generation's marker file holds the
marker's text there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Names that came with one refactoring; every map goes from the name before to the name after."""

    marker: str
    """A file, relative to the tree, that holds ``marker_text`` since these names exist."""
    marker_text: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of the command line without their dashes; what lies below a renamed option follows it."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Values of options: names of configurations, class paths; what lies below a renamed module follows it."""
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Whole arguments that became several others, or none."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files, relative to the run folder."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Columns of metrics.csv."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Fields of the rows of tables (*.jsonl) and banks (*.json), however deep."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """Beginnings of the keys of a checkpoint's `state_dict` and `optimizer_states`, up to a dot."""


GENERATIONS: tuple[Generation, ...] = (
    # issue 14, the tree: modules that configurations name
    Generation(
        marker="sgsd_lightning/toy/__init__.py",
        values={
            "sgsd_lightning.data.toy": "sgsd_lightning.toy",
            "sgsd_lightning.data.ChatPrompts": "sgsd_lightning.prompts.ChatPrompts",
            "sgsd_lightning.strategies": "sgsd_lightning.training",
        },
    ),
    # issue 14, the contracts: arguments grouped by who reads them
    Generation(
        marker="configs/sgsd_toy.yaml",
        marker_text="group_size:",
        options={
            "model.init_args.rollouts": "model.init_args.rollouts.init_args.engine",
            "model.init_args.sampling": "model.init_args.rollouts.init_args.sampling",
            "model.init_args.samples_per_prompt": "model.init_args.rollouts.init_args.group_size",
            "model.init_args.student_contexts": "model.init_args.rollouts.init_args.guidance",
            "model.init_args.teacher_tokens_per_forward": "model.init_args.scoring.teacher_tokens_per_forward",
            "model.init_args.head_implementation": "model.init_args.scoring.head_implementation",
            "model.init_args.train_eos": "model.init_args.scoring.train_eos",
            "model.init_args.evaluation.samples_per_problem": "model.init_args.evaluation.group_size",
        },
    ),
    # issue 14: the fields of tables
    Generation(
        marker="sgsd_lightning/callbacks/rollout_table.py",
        marker_text='"sample_index"',
        fields={"group_index": "sample_index"},
    ),
)
"""Oldest first."""

MAY_VANISH: tuple[str, ...] = ()
"""Patterns (fnmatch) of ``file: key`` that the newer tree may leave out, such as ``metrics/*: tokens/padding_frac``."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one tree uses.

    Attributes:
        known: generations that the tree has, oldest first; its command line is written in the last of them.
        missing: generations that it does not have yet; its results are read in the names that came with them.
    """

    known: tuple[Generation, ...]
    missing: tuple[Generation, ...]

    @classmethod
    def of(cls, tree: Path, generations: Sequence[Generation] = GENERATIONS) -> Names:
        """The names of the tree in a folder."""
        known = tuple(generation for generation in generations if _has(tree, generation))
        return cls(known, tuple(generation for generation in generations if generation not in known))

    def arguments(self, written: Sequence[str]) -> list[str]:
        """A command line in the oldest names, as this tree understands it."""
        translated = list(written)
        for generation in self.known:
            translated = [new for old in translated for new in _argument(old, generation)]
        return translated

    def file(self, path: str) -> str:
        """The newest name of a file of a run."""
        for generation in self.missing:
            path = generation.files.get(path, path)
        return path

    def metric(self, name: str) -> str:
        """The newest name of a metric."""
        for generation in self.missing:
            name = generation.metrics.get(name, name)
        return name

    def field(self, name: str) -> str:
        """The newest name of a field of a row."""
        for generation in self.missing:
            name = generation.fields.get(name, name)
        return name

    def tensor(self, key: str) -> str:
        """The newest name of a tensor."""
        for generation in self.missing:
            key = _below(key, generation.tensors)
        return key


def _has(tree: Path, generation: Generation) -> bool:
    marker = tree / generation.marker
    return marker.is_file() and generation.marker_text in marker.read_text(encoding="utf-8")


def _argument(argument: str, generation: Generation) -> tuple[str, ...]:
    if argument in generation.replaced:
        return generation.replaced[argument]
    if not argument.startswith("--"):
        return (_below(argument, generation.values),)
    option, equals, value = argument.removeprefix("--").partition("=")
    return (f"--{_below(option, generation.options)}{equals}{_below(value, generation.values)}",)


def _below(name: str, renamed: Mapping[str, str]) -> str:
    """The name under the longest of the renamed names that it is or lies below."""
    for old in sorted(renamed, key=len, reverse=True):
        if name == old or name.startswith(f"{old}."):
            return renamed[old] + name[len(old) :]
    return name
