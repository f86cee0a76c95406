"""Rollouts by transformers' own generation: any causal LM, any device, no server."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.rollouts.base import RolloutEngine, RolloutRequest
from sgsd_lightning.rollouts.sampling import RecordingSampler, SampledTokens, TokenSampler
from sgsd_lightning.types import FinishReason, Rollout, SamplingSettings


class TransformersEngine(RolloutEngine):
    """Batched generation with left padding and a key-value cache.

    Requests of similar prompt length share a batch. A completion is determined by its request's seed and the model's
    probabilities, not by its batch.

    Args:
        batch_size: The most completions generated at a time.
        max_batch_tokens: The most tokens (prompt and new ones, padding included) that a batch may come to hold in its
            cache; bounds memory. A longer request is generated alone.
    """

    def __init__(self, batch_size: int = 64, max_batch_tokens: int = 262_144) -> None:
        for name, value in (("batch_size", batch_size), ("max_batch_tokens", max_batch_tokens)):
            if value < 1:
                raise ValueError(f"rollouts.{name} must be at least 1; got {value}")
        self.batch_size = batch_size
        self.max_batch_tokens = max_batch_tokens

    def generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[RolloutRequest],
        sampling: SamplingSettings,
    ) -> list[Rollout]:
        """One rollout a request, in their order.

        Raises:
            ValueError: for an empty prompt, or one that leaves no room for ``max_new_tokens``.
        """
        _check_prompts(model, requests, sampling)
        end_ids = end_of_sequence_ids(model, tokenizer)
        rollouts: dict[int, Rollout] = {}
        with _evaluation_mode(model), _own_generation_settings(model, tokenizer, end_ids, sampling):
            for indices in self._batches(requests, sampling.max_new_tokens):
                batch = [requests[index] for index in indices]
                completions = _generate_batch(model, tokenizer, batch, sampling)
                for index, request, sampled in zip(indices, batch, completions, strict=True):
                    rollouts[index] = _rollout(request, sampled, tokenizer, end_ids)
        return [rollouts[index] for index in range(len(requests))]

    def _batches(self, requests: Sequence[RolloutRequest], max_new_tokens: int) -> list[list[int]]:
        batches: list[list[int]] = []
        for index in sorted(range(len(requests)), key=lambda index: -len(requests[index].prompt_ids)):
            # the first of a batch has its longest prompt, which the others are padded to
            first = requests[batches[-1][0] if batches else index]
            width = len(first.prompt_ids) + max_new_tokens
            is_full = not batches or len(batches[-1]) >= self.batch_size
            if is_full or (len(batches[-1]) + 1) * width > self.max_batch_tokens:
                batches.append([])
            batches[-1].append(index)
        return batches


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


@torch.no_grad()
def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[RolloutRequest],
    sampling: SamplingSettings,
) -> list[SampledTokens]:
    """What was sampled for each request, [steps] each; the steps after a row's end are of no meaning."""
    width = max(len(request.prompt_ids) for request in requests)
    num_padded = [width - len(request.prompt_ids) for request in requests]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    input_ids = [[pad] * count + list(request.prompt_ids) for count, request in zip(num_padded, requests, strict=True)]
    mask = [[0] * count + [1] * (width - count) for count in num_padded]
    recorder = RecordingSampler(TokenSampler(sampling), _uniforms(requests, sampling.max_new_tokens).to(model.device))
    model.generate(
        input_ids=torch.tensor(input_ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        logits_processor=LogitsProcessorList([recorder]),
    )
    by_field = {
        name: torch.stack([getattr(step, name) for step in recorder.steps], dim=1).cpu()
        for name in ("ids", "logprob", "sampling_logprob", "kept_mass")
    }
    return [SampledTokens(**{name: values[row] for name, values in by_field.items()}) for row in range(len(requests))]


def _uniforms(requests: Sequence[RolloutRequest], num_steps: int) -> Tensor:
    """[requests, num_steps] float64: each row from its own seed; a longer row begins as a shorter one does."""
    rows = [
        torch.rand(num_steps, generator=torch.Generator().manual_seed(request.seed), dtype=torch.float64)
        for request in requests
    ]
    return torch.stack(rows)


def _rollout(
    request: RolloutRequest, sampled: SampledTokens, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]
) -> Rollout:
    ids = sampled.ids.tolist()
    end = next((step for step, token_id in enumerate(ids) if token_id in end_ids), None)
    length = len(ids) if end is None else end + 1
    return Rollout(
        problem=request.problem,
        prompt_ids=request.prompt_ids,
        completion_ids=tuple(ids[:length]),
        completion_text=tokenizer.decode(ids[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False),
        finish_reason=FinishReason.TRUNCATED if end is None else FinishReason.STOPPED,
        logprobs=sampled.logprob[:length].clone(),
        sampling_logprobs=sampled.sampling_logprob[:length].clone(),
        kept_mass=sampled.kept_mass[:length].clone(),
        group_index=request.group_index,
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


@contextmanager
def _own_generation_settings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Sequence[int],
    sampling: SamplingSettings,
) -> Iterator[None]:
    """Generation settings in which nothing is left to the ones that a model ships with (penalties, filters, lengths).

    Greedy search, because what it is to choose is decided in the one logits processor.
    """
    shipped = model.generation_config
    own = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=sampling.max_new_tokens,
        use_cache=True,
        eos_token_id=list(end_ids) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        bos_token_id=tokenizer.bos_token_id,
    )
    model.generation_config = copy.deepcopy(own)
    try:
        yield
    finally:
        model.generation_config = shipped
