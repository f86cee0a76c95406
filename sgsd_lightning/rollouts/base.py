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
        weights_version: int = 0,
    ) -> list[Rollout]:
        """One rollout a request, in their order, without gradient.

        A completion depends on its own request, the weights and the settings alone (up to rounding): not on the
        batch it is sampled in.

        Args:
            model: The policy; its weights at this moment are the ones to sample with.
            tokenizer: Its tokenizer.
            requests: What to sample; may be empty in a process that has no part in a batch.
            sampling: How.
            weights_version: The optimizer step of the weights; every rollout carries it. An engine that holds a copy
                of the weights has to refresh it whenever this number or the model object differs from the last
                call's, also when the number went down (an earlier checkpoint was loaded).
        """
