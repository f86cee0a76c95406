"""Which weights teach: the student's own, the ones it started from, their moving average, or a recent snapshot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from sgsd_lightning.policy.lora import adapter_layers, adapters_disabled
from sgsd_lightning.policy.shadow_weights import ShadowWeights
from sgsd_lightning.types.arguments import require, require_at_least


class PolicyView(nn.Module, ABC):
    """What the policy's weights look like to a teacher, or to a sampler.

    A module, so that weights which it holds are moved, sharded and saved in a checkpoint as the student's are.
    """

    is_saved: bool = True
    """Whether its parameters belong in a checkpoint; those of a teacher that the policy's source gives back do not."""

    applies_to: ClassVar[frozenset[str]] = frozenset({"teacher"})
    """Who may look through it: ``teacher``, ``sampler``."""

    @abstractmethod
    def prepare(self, student_model: PreTrainedModel) -> None:
        """Called once, when the student was loaded (and sharded) and nothing was trained or resumed yet."""

    @abstractmethod
    def activate(self, student_model: PreTrainedModel) -> AbstractContextManager[PreTrainedModel]:
        """A context manager that gives the teacher's model, on the student's device; used under ``no_grad``.

        Within it nothing else may read or train the student: the model may be the same one with other weights in it.
        """

    def shares_head(self, model: PreTrainedModel) -> bool:
        """Whether the head of the model that :meth:`activate` gives is the student's own."""
        return not model.get_output_embeddings().weight.requires_grad

    def update(self, student_model: PreTrainedModel, step: int) -> None:
        """Called after every optimizer step; ``step`` is the number of steps taken, from 1."""


class LiveTeacher(PolicyView):
    """The student itself, as it is at this step. Costs nothing."""

    applies_to = frozenset({"teacher", "sampler"})

    def shares_head(self, model: PreTrainedModel) -> bool:
        return True

    def prepare(self, student_model: PreTrainedModel) -> None:
        pass

    @contextmanager
    def activate(self, student_model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        yield student_model


class ShadowTeacher(PolicyView):
    """A teacher with its own values of the trained parameters that shares the student's frozen ones.

    The second values lie beside the student's, shard by shard, and are exchanged with them while the teachers run, so
    that there is one model, one sharding and one set of tied weights, whatever is trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shadow: ShadowWeights | None = None

    def prepare(self, student_model: PreTrainedModel) -> None:
        self.shadow = ShadowWeights(student_model)

    @contextmanager
    def activate(self, student_model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        with self._prepared().exchanged_with(student_model):
            yield student_model

    def _prepared(self) -> ShadowWeights:
        if self.shadow is None:
            raise RuntimeError(f"{type(self).__name__} was used before prepare")
        return self.shadow


class FrozenTeacher(ShadowTeacher):
    """The policy before training.

    With LoRA that is the student with its adapters off, at no cost. Without, a copy of the initial weights, which a
    checkpoint does not hold: the policy's source gives the same ones again.
    """

    is_saved = False

    def prepare(self, student_model: PreTrainedModel) -> None:
        if not adapter_layers(student_model):
            super().prepare(student_model)

    @contextmanager
    def activate(self, student_model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        if adapter_layers(student_model):
            with adapters_disabled(student_model):
                yield student_model
            return
        with super().activate(student_model):
            yield student_model


class EmaTeacher(ShadowTeacher):
    """The exponential moving average of the student's trained weights, in float32.

    Every ``every_n_steps`` optimizer steps: teacher = decay * teacher + (1 - decay) * student. Starts at the initial
    weights.

    Args:
        decay: In [0, 1]; nearer to 1 follows more slowly. 0 is the student as of the last update.
        every_n_steps: Optimizer steps from one update to the next.
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1) -> None:
        super().__init__()
        require(0 <= decay <= 1, "teacher_weights.decay", "be in [0, 1]", decay)
        require_at_least(1, "teacher_weights.every_n_steps", every_n_steps)
        self.decay = decay
        self.every_n_steps = every_n_steps

    def update(self, student_model: PreTrainedModel, step: int) -> None:
        if step % self.every_n_steps == 0:
            self._prepared().move_towards(student_model, 1 - self.decay)


class PeriodicTeacher(ShadowTeacher):
    """The student as it was at the last multiple of ``every_n_steps`` optimizer steps.

    Args:
        every_n_steps: Optimizer steps from one refresh to the next.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__()
        require_at_least(1, "teacher_weights.every_n_steps", every_n_steps)
        self.every_n_steps = every_n_steps

    def update(self, student_model: PreTrainedModel, step: int) -> None:
        if step % self.every_n_steps == 0:
            self._prepared().move_towards(student_model, 1.0)
