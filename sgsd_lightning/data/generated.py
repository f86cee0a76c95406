"""Problems that reasoning-gym generates, each with an exact scorer, without a download."""

from __future__ import annotations

import dataclasses
import difflib
from types import ModuleType
from typing import Any

from sgsd_lightning.data.sources import ProblemSource, check_problems
from sgsd_lightning.types import Problem
from sgsd_lightning.types.arguments import require, require_at_least

INSTALL = "pip install 'sgsd-lightning[laptop]'"
OWN_SETTINGS = ("seed", "size")
"""Of a data set's configuration, named ``seed`` and ``num`` here."""


class ReasoningGymProblems(ProblemSource):
    """Problems of a data set of reasoning-gym, those of ``reasoning_gym.create_dataset(dataset, seed=..., size=...)``.

    Problem i derives from ``seed + i``, so training and evaluation need seeds at least ``num`` apart, which is checked.
    Small data sets repeat themselves all the same: ``ProblemDataModule.trained_problems`` says what becomes of that.

    Args:
        dataset: its name, such as ``chain_sum``; ``reasoning_gym.factory.DATASETS`` has all of them.
        num: how many problems.
        seed: what the first one derives from.
        settings: the data set's own, such as ``min_terms=2``; in YAML under ``dict_kwargs``.

    Raises:
        ValueError: for a ``num`` or a ``seed`` out of range.
    """

    def __init__(self, dataset: str, num: int, seed: int = 0, **settings: Any) -> None:
        require_at_least(1, "data.num", num)
        require(seed >= 0, "data.seed", "be 0 or more", seed)
        self.dataset = dataset
        self.num = num
        self.seed = seed
        self.settings = settings

    def load(self) -> list[Problem]:
        """Generate the problems; needs the extra ``laptop``.

        What reasoning-gym notes of a problem is its metadata, with the data set's name as ``source_dataset``. Where any
        of several answers is right and none is published, the answer is empty.

        Raises:
            ImportError: if reasoning-gym is not installed.
            ValueError: for a data set or a setting that there is not, or one that the data set refuses.
        """
        generated = self._generated()
        where = f"reasoning-gym's {self.dataset}"
        try:
            entries = [generated[index] for index in range(self.num)]
        except Exception as error:  # whatever a generator raises over settings that fit no problem
            raise ValueError(f"{where} cannot generate {self.num} problems: {_reason(error)}") from error
        return check_problems([self._problem(index, entry) for index, entry in enumerate(entries)], where)

    def refuse_if_same(self, trained: ProblemSource) -> None:
        if not isinstance(trained, ReasoningGymProblems) or trained.dataset != self.dataset:
            return
        if self.seed < trained.seed + trained.num and trained.seed < self.seed + self.num:
            raise ValueError(
                f"problems of reasoning-gym's {self.dataset} derive from seed + index: seeds {trained.seed} to "
                f"{trained.seed + trained.num - 1} are trained on and {self.seed} to {self.seed + self.num - 1} "
                f"evaluate; take a seed of {trained.seed + trained.num} or more"
            )

    def _problem(self, index: int, entry: dict[str, Any]) -> Problem:
        answer = entry["answer"]
        return Problem(
            problem_id=f"{self.dataset}-{self.seed + index}",
            text=str(entry["question"]),
            answer="" if answer is None else str(answer),
            metadata={**entry["metadata"], "source_dataset": self.dataset},
        )

    def _generated(self) -> Any:
        """The data set, made lazily problem by problem."""
        configuration = dataset_classes(self.dataset)[1]
        known = [field.name for field in dataclasses.fields(configuration) if field.name not in OWN_SETTINGS]
        for name in self.settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known) or 'none'}"
                raise ValueError(f"reasoning-gym's {self.dataset} has no setting {name!r}; {hint}")
        try:
            return import_reasoning_gym().create_dataset(self.dataset, seed=self.seed, size=self.num, **self.settings)
        except Exception as error:  # their configurations check with assert
            given = ", ".join(f"{name}={value!r}" for name, value in self.settings.items()) or "its defaults"
            raise ValueError(f"reasoning-gym's {self.dataset} refuses {given}: {_reason(error)}") from error


def dataset_classes(name: str) -> tuple[type, type]:
    """Return the class of a data set and that of its configuration.

    Raises:
        ImportError: if reasoning-gym is not installed.
        ValueError: for a name that there is not.
    """
    import_reasoning_gym()
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(sorted(DATASETS))}"
        raise ValueError(f"reasoning-gym has no data set {name!r}; {hint}")
    dataset, configuration = DATASETS[name]
    return dataset, configuration


def import_reasoning_gym() -> ModuleType:
    """Return the package, which takes a second or two to import.

    Raises:
        ImportError: if it, or a package that it needs, is not installed.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError(f"generated problems need the package reasoning-gym ({error}): {INSTALL}") from error
    package: ModuleType = reasoning_gym
    return package


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
