"""The life cycle that every plug-in shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sgsd_lightning.types.steps import Observation


class Part:
    """The life cycle of every plug-in: engines, rollouters, verifiers, contexts, critics. All of it optional.

    Order: :meth:`prepare` before the model is loaded, :meth:`attach` when it is, :meth:`observe` after every optimizer
    step. A checkpoint holds :meth:`state_dict`, which a resume gives back after :meth:`prepare`.
    """

    def prepare(self) -> None:
        """Load files, and raise a clear error if something is wrong with them, before any work is lost."""

    def attach(self, learners: Mapping[str, Any]) -> None:
        """Receive the run's learners by name, once their models are loaded: for parts that generate or read weights."""

    def session(self) -> AbstractContextManager[None]:
        """Return a context that all processes enter around work that needs all of them, such as gathered weights."""
        return nullcontext()

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        """Receive an optimizer step's observations from all processes, in the same order on every process.

        State that later calls derive from them belongs into :meth:`state_dict`.
        """

    def counts(self) -> dict[str, float]:
        """Return this process's counts of failures by name, to be logged."""
        return {}

    def state_dict(self) -> Mapping[str, Any]:
        """Return what a checkpoint must hold to resume this part: strings, numbers and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state of a checkpoint; called after :meth:`prepare`."""
