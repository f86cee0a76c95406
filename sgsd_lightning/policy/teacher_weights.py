"""Which weights teach: the student's own, live, or the ones it started from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from transformers import PreTrainedModel

from sgsd_lightning.policy.loading import PolicySource
from sgsd_lightning.policy.lora import adapter_layers, adapters_disabled


class TeacherWeights(ABC):
    """Provides the model that scores completions under teacher contexts."""

    @abstractmethod
    def prepare(self, student_model: PreTrainedModel, source: PolicySource) -> None:
        """Called once, when the student was loaded from ``source`` and nothing was trained or resumed yet."""

    @abstractmethod
    def activate(self, student_model: PreTrainedModel) -> AbstractContextManager[PreTrainedModel]:
        """A context manager that gives the teacher's model, on the student's device; used under ``no_grad``."""

    def update(self, student_model: PreTrainedModel, step: int) -> None:
        """Called after every optimizer step; ``step`` is the number of steps taken."""

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold so that teaching goes on as before: strings, numbers and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint; called after :meth:`prepare`."""


class LiveTeacher(TeacherWeights):
    """The student itself, as it is at this step."""

    def prepare(self, student_model: PreTrainedModel, source: PolicySource) -> None:
        pass

    @contextmanager
    def activate(self, student_model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        yield student_model


class FrozenTeacher(TeacherWeights):
    """The policy before training.

    With LoRA that is the student with its adapters off, at no cost. Without, a second copy of the model is loaded from
    the policy's source, which gives the same initial weights again whenever it is asked; a checkpoint holds none.
    """

    def __init__(self) -> None:
        self._initial_model: PreTrainedModel | None = None

    def prepare(self, student_model: PreTrainedModel, source: PolicySource) -> None:
        if not adapter_layers(student_model):
            self._initial_model = source.load_model().eval().requires_grad_(False)

    @contextmanager
    def activate(self, student_model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        if adapter_layers(student_model):
            with adapters_disabled(student_model):
                yield student_model
            return
        if self._initial_model is None:
            raise RuntimeError("FrozenTeacher.activate was called before prepare")
        if self._initial_model.device != student_model.device:
            self._initial_model.to(student_model.device)
        yield self._initial_model
