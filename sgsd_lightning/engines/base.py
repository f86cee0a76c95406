"""The contract of a rollout engine: token ids in, completions out. It knows no problems, texts or tokenizers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from sgsd_lightning.types import Completion, Part, SamplingSettings

STREAMED_AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One completion to sample."""

    prompt_ids: tuple[int, ...]
    seed: int
    """Everything random about this completion derives from this number (64 bits)."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end the completion, which then holds the id as its last."""
    first_uniform: int = 0
    """How many of the seed's random numbers were used before: a completion that is paused and continued with its ids
    in the prompt then equals one that was sampled at once."""
    label: str = ""
    """What the request is for, in error messages: ``problem 'p3'``."""


class RolloutEngine(Part):
    """Samples completions from a policy."""

    is_reproducible: bool = True
    """Whether the same request, weights and settings give the same ids. If not, a resumed run, or one on another number
    of processes, samples other completions."""

    def sync(self, model: PreTrainedModel, version: int) -> None:
        """Take the current weights; called by every process before it samples from them.

        Completions carry ``version`` from now on. Engines that read the model in place have nothing to copy.

        Args:
            model: The policy.
            version: The optimizer step of its weights; may be lower than before, when a checkpoint was loaded.
        """

    @abstractmethod
    def generate(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        """Sample one completion per request, in their order, without gradient.

        A completion depends on its own request, the weights and the settings alone (up to rounding): not on the
        batch it is sampled in.

        Args:
            model: The policy; its weights of the last :meth:`sync` are sampled from.
            requests: What to sample; may be empty in a process that has no part in a batch.
            sampling: Length, temperature and filters.
        """

    def stream(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index of the request, completion) pairs as completions end, so that a stop loses little work.

        By default completions come in chunks of requests; an engine that decodes continuously overrides this.
        """
        for start in range(0, len(requests), STREAMED_AT_A_TIME):
            some = requests[start : start + STREAMED_AT_A_TIME]
            yield from enumerate(self.generate(model, some, sampling), start=start)

    def close(self) -> None:
        """Release what the engine holds; it is not used again."""


def check_freshness(engine: RolloutEngine, completions: Sequence[Completion], version: int) -> None:
    """Refuse completions of outdated weights, from an engine that holds a copy of them.

    Raises:
        RuntimeError: naming the engine, if a completion is of other weights than those of step ``version``.
    """
    stale = next((completion for completion in completions if completion.policy_version != version), None)
    if stale is not None:
        raise RuntimeError(
            f"{type(engine).__name__} sampled with the weights of step {stale.policy_version} at step {version}; an "
            "engine that holds a copy of the weights must refresh it in sync"
        )
