"""The contract of a rollout engine: prompts in, sampled completions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.types import Problem, Rollout, SamplingSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutRequest:
    """One completion to sample."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    seed: int
    """Everything random about this completion derives from this number (64 bits)."""
    group_index: int = 0


class RolloutEngine(ABC):
    """Samples completions from the policy."""

    @abstractmethod
    def generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
    ) -> list[Rollout]:
        """One rollout a request, in their order, without gradient.

        A completion depends on its own request, the weights and the settings alone (up to rounding): not on the
        batch it is sampled in.
        """
