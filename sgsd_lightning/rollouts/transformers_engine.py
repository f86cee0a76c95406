"""Rollouts by the policy itself, through transformers: any causal LM, any device, no server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.distributed.gathered_weights import gathered_weights
from sgsd_lightning.distributed.lockstep import lockstep
from sgsd_lightning.rollouts.base import RolloutEngine, RolloutRequest
from sgsd_lightning.rollouts.decoding import BatchLimits, Decoder
from sgsd_lightning.rollouts.sampling import SampledTokens
from sgsd_lightning.types import FinishReason, Rollout, SamplingSettings


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
        for name, value in (("batch_size", batch_size), ("max_batch_tokens", max_batch_tokens)):
            if value < 1:
                raise ValueError(f"rollouts.{name} must be at least 1; got {value}")
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens
        self.gather_weights = gather_weights

    def generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
        weights_version: int = 0,
    ) -> list[Rollout]:
        """One rollout a request, in their order. With FSDP2 every process calls this, also one without requests.

        Raises:
            ValueError: for an empty prompt, or one that leaves no room for ``max_new_tokens``.
        """
        sharded = gathered_weights if self.gather_weights else lockstep
        with _evaluation_mode(model), sharded(model):
            return self.decode(model, tokenizer, requests, sampling, weights_version)

    def decode(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
        weights_version: int = 0,
    ) -> list[Rollout]:
        """The same for a model that is whole on its device; no collective.

        Raises:
            ValueError: as :meth:`generate`.
        """
        found = dict(self._finished(model, tokenizer, requests, sampling, weights_version))
        return [found[place] for place in range(len(requests))]

    def stream(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
    ) -> Iterator[tuple[int, Rollout]]:
        """Every rollout as soon as it has ended, for a model that is whole on its device.

        Raises:
            ValueError: as :meth:`generate`.
        """
        return self._finished(model, tokenizer, requests, sampling, weights_version=0)

    def _finished(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
        weights_version: int,
    ) -> Iterator[tuple[int, Rollout]]:
        _check_prompts(model, requests, sampling)
        end_ids = end_of_sequence_ids(model, tokenizer)
        limits = BatchLimits(batch_size=self.batch_size, max_batch_tokens=self.max_batch_tokens)
        with _evaluation_mode(model):
            for place, tokens in Decoder(model, sampling, end_ids, limits).finished(requests):
                yield place, _rollout(requests[place], tokens, tokenizer, end_ids, weights_version)


def end_of_sequence_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a completion: the tokenizer's, and those of the model's generation settings."""
    settings = model.generation_config
    declared = None if settings is None else settings.eos_token_id
    ids = declared if isinstance(declared, list) else [declared]
    return sorted({token_id for token_id in (tokenizer.eos_token_id, *ids) if token_id is not None})


def _check_prompts(model: PreTrainedModel, requests: Sequence[RolloutRequest], sampling: SamplingSettings) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for request in requests:
        length = len(request.prompt_ids)
        if length == 0:
            raise ValueError(f"the prompt of problem {request.problem.problem_id!r} has no tokens")
        if limit is not None and length + sampling.max_new_tokens > limit:
            raise ValueError(
                f"the prompt of problem {request.problem.problem_id!r} ({length} tokens) and sampling.max_new_tokens = "
                f"{sampling.max_new_tokens} exceed the model's {limit} positions; lower max_new_tokens or "
                "prompts.max_prompt_tokens"
            )


def _rollout(
    request: RolloutRequest,
    sampled: SampledTokens,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Sequence[int],
    weights_version: int,
) -> Rollout:
    ids = sampled.ids.tolist()
    return Rollout(
        problem=request.problem,
        prompt_ids=request.prompt_ids,
        completion_ids=tuple(ids),
        completion_text=tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        finish_reason=FinishReason.STOPPED if ids[-1] in end_ids else FinishReason.TRUNCATED,
        logprobs=sampled.logprob,
        sampling_logprobs=sampled.sampling_logprob,
        kept_mass=sampled.kept_mass,
        group_index=request.group_index,
        weights_version=weights_version,
    )


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """In training mode, gradient checkpointing drops the key-value cache without a word."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes.items():
            module.training = was_training
