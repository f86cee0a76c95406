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
        """Load files, and raise a clear error for what is wrong with them, before any work is lost."""

    def attach(self, learners: Mapping[str, Any]) -> None:
        """Receive the run's learners by name, once their models are loaded: for parts that generate or read weights."""

    def session(self) -> AbstractContextManager[None]:
        """Entered by every process around work that needs all of them, such as gathered weights."""
        return nullcontext()

    def observe(self, step: int, observations: Sequence[Observation]) -> None:
        """Receive an optimizer step's observations from all processes, in the same order on every process.

        What later calls make of them belongs into :meth:`state_dict`.
        """

    def counts(self) -> dict[str, float]:
        """What went wrong so far in this process, by name, to be logged."""
        return {}

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold so that this part continues as before: strings, numbers and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint; called after :meth:`prepare`."""
