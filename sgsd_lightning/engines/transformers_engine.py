"""Rollouts by the policy itself, through transformers: any causal LM, any device, no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.distributed.gathered_weights import gathered_weights
from sgsd_lightning.distributed.lockstep import lockstep
from sgsd_lightning.engines.base import GenerationRequest, RolloutEngine
from sgsd_lightning.engines.decoding import BatchLimits, Decoder
from sgsd_lightning.engines.positions import position_limit
from sgsd_lightning.engines.sampling import SampledTokens
from sgsd_lightning.types import Completion, FinishReason, SamplingSettings
from sgsd_lightning.types.arguments import require_at_least


class TransformersEngine(RolloutEngine):
    """Batched decoding with a key-value cache, in which a row that stops makes room for the next request.

    A completion is determined by its request's seed and the model's probabilities, not by its batch. The policy's own
    weights are read in place, so that a completion always comes from the current ones.

    Args:
        batch_size: The most completions generated at a time.
        max_batch_tokens: The most tokens (prompt and new ones, padding included) that a batch may come to hold in its
            cache; bounds memory. A longer request is generated alone.
        gather_weights: With FSDP2: gather the whole model on every device while sampling, which leaves processes
            independent of one another. Off gathers a layer at a time, for models that no device can hold; every step
            then waits for all processes.
    """

    def __init__(self, batch_size: int = 64, max_batch_tokens: int = 262_144, gather_weights: bool = True) -> None:
        require_at_least(1, "engine.batch_size", batch_size)
        require_at_least(1, "engine.max_batch_tokens", max_batch_tokens)
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens
        self.gather_weights = gather_weights
        self._version = 0

    def sync(self, model: PreTrainedModel, version: int) -> None:
        """Note the version; weights are read in place."""
        self._version = version

    def generate(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        """One completion per request, in their order. With FSDP2 every process calls this, also without requests.

        Raises:
            ValueError: for an empty prompt, or one that leaves no room for ``max_new_tokens``.
        """
        sharded = gathered_weights if self.gather_weights else lockstep
        with _evaluation_mode(model), sharded(model):
            return self.decode(model, requests, sampling)

    def decode(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        """Do as :meth:`generate` for a model that is whole on its device, without a collective.

        Raises:
            ValueError: as :meth:`generate`.
        """
        found = dict(self.stream(model, requests, sampling))
        return [found[place] for place in range(len(requests))]

    def stream(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index of the request, completion) as completions end, for a model that is whole on its device.

        Raises:
            ValueError: as :meth:`generate`.
        """
        _check_prompts(model, requests, sampling)
        limits = BatchLimits(batch_size=self.batch_size, max_batch_tokens=self.max_batch_tokens)
        with _evaluation_mode(model):
            for place, tokens in Decoder(model, sampling, limits).finished(requests):
                yield place, _completion(requests[place], tokens, self._version)


def end_of_sequence_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids that end a completion: the tokenizer's and those of the model's generation settings, sorted."""
    settings = model.generation_config
    declared = None if settings is None else settings.eos_token_id
    ids = declared if isinstance(declared, list) else [declared]
    return tuple(sorted({token_id for token_id in (tokenizer.eos_token_id, *ids) if token_id is not None}))


def _check_prompts(model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings) -> None:
    limit = position_limit(model.config)
    for place, request in enumerate(requests):
        length = len(request.prompt_ids)
        name = f"the prompt of {request.label or f'request {place}'}"
        if length == 0:
            raise ValueError(f"{name} has no tokens")
        if limit is not None:
            limit.check(name, length, sampling.max_new_tokens)


def _completion(request: GenerationRequest, sampled: SampledTokens, version: int) -> Completion:
    ids = tuple(sampled.ids.tolist())
    return Completion(
        ids=ids,
        finish_reason=FinishReason.STOPPED if ids[-1] in request.stop_ids else FinishReason.TRUNCATED,
        logprobs=sampled.logprob,
        sampling_logprobs=sampled.sampling_logprob,
        kept_mass=sampled.kept_mass,
        policy_version=version,
    )


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Evaluate the model: in training mode gradient checkpointing silently drops the key-value cache."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes.items():
            module.training = was_training
