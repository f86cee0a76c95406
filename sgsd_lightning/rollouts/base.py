"""The contract of a rollout engine: prompts in, sampled completions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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


STREAMED_AT_A_TIME = 64


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

    def stream(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
    ) -> Iterator[tuple[int, Rollout]]:
        """The same as it comes, for work that is to be kept when it is stopped: a request's place, and its rollout.

        Here some requests at a time; an engine that knows of each completion when it ends overrides this.
        """
        for start in range(0, len(requests), STREAMED_AT_A_TIME):
            some = requests[start : start + STREAMED_AT_A_TIME]
            yield from enumerate(self.generate(model, tokenizer, some, sampling), start=start)


def check_freshness(engine: RolloutEngine, rollouts: Sequence[Rollout], weights_version: int) -> None:
    """An engine that holds a copy of the weights must have refreshed it.

    Raises:
        RuntimeError: naming the engine, if a rollout is of other weights than those of step ``weights_version``.
    """
    stale = next((rollout for rollout in rollouts if rollout.weights_version != weights_version), None)
    if stale is not None:
        raise RuntimeError(
            f"{type(engine).__name__} sampled with the weights of step {stale.weights_version} at step "
            f"{weights_version}; an engine that holds a copy of the weights must refresh it when weights_version "
            "changes"
        )
