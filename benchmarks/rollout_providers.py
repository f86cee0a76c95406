"""Ways to sample the same rollouts: the engine as it is, as it was, and what transformers offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    CompileConfig,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from benchmarks.rollout_workloads import Workload
from sgsd_lightning.engines import GenerationRequest, TransformersEngine, end_of_sequence_ids
from sgsd_lightning.engines.sampling import TokenSampler
from sgsd_lightning.scoring.attention import VARLEN
from sgsd_lightning.types import SamplingSettings

Completions = list[tuple[int, ...]]
Choose = Callable[[Tensor, Tensor], Tensor]
"""Logits [B, V] and uniforms [B] to ids [B]."""


class SortedSampler:
    """The sampler as it was: transformers' filters and a cumulative sum over the whole vocabulary in float64."""

    def __init__(self, sampling: SamplingSettings) -> None:
        self._temper, self._filters = LogitsProcessorList(), LogitsProcessorList()
        if sampling.sampling_temperature != 1:
            self._temper.append(TemperatureLogitsWarper(sampling.sampling_temperature))
        if sampling.sampling_top_k > 0:
            self._filters.append(TopKLogitsWarper(sampling.sampling_top_k))
        if sampling.sampling_top_p < 1:
            self._filters.append(TopPLogitsWarper(sampling.sampling_top_p))
        if sampling.sampling_min_p > 0:
            self._filters.append(MinPLogitsWarper(sampling.sampling_min_p))

    def __call__(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        logits = logits.float()
        tempered = self._temper(None, logits)
        filtered = self._filters(None, tempered)
        cumulative = filtered.double().softmax(-1).cumsum(-1)
        total = cumulative[:, -1:]
        ids = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
        ids = torch.minimum(ids, (cumulative < total).sum(-1, keepdim=True))
        # what a rollout records beside its ids
        for distribution in (logits.log_softmax(-1), filtered.log_softmax(-1)):
            distribution.gather(-1, ids)
        tempered.softmax(-1).masked_fill(filtered == -torch.inf, 0.0).sum(-1)
        return ids[:, 0]


def current(workload: Workload) -> Completions:
    """`TransformersEngine`: rows that stop leave, waiting requests join."""
    engine = TransformersEngine(batch_size=workload.batch_size)
    return [completion.ids for completion in engine.generate(workload.model, workload.requests, workload.sampling)]


@dataclass(frozen=True, slots=True)
class Generate:
    """``model.generate`` in batches of similar prompt lengths, each until its last row has stopped."""

    sampler: Callable[[SamplingSettings], Choose]
    has_static_cache: bool = False
    is_compiled: bool = False

    def __call__(self, workload: Workload) -> Completions:
        order = sorted(range(len(workload.requests)), key=lambda row: -len(workload.requests[row].prompt_ids))
        completions: dict[int, tuple[int, ...]] = {}
        for start in range(0, len(order), workload.batch_size):
            rows = order[start : start + workload.batch_size]
            batch = [workload.requests[row] for row in rows]
            completions.update(zip(rows, self._batch(workload, batch), strict=True))
        return [completions[row] for row in range(len(order))]

    @torch.no_grad()
    def _batch(self, workload: Workload, requests: Sequence[GenerationRequest]) -> Completions:
        model, num_steps = workload.model, workload.sampling.max_new_tokens
        end_ids = end_of_sequence_ids(model, workload.tokenizer)
        width = max(len(request.prompt_ids) for request in requests)
        padding = [width - len(request.prompt_ids) for request in requests]
        ids = [[0] * count + list(request.prompt_ids) for count, request in zip(padding, requests, strict=True)]
        mask = [[0] * count + [1] * (width - count) for count in padding]
        uniforms = torch.stack(
            [
                torch.rand(num_steps, generator=torch.Generator().manual_seed(request.seed), dtype=torch.float64)
                for request in requests
            ]
        )
        settings = GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=num_steps, eos_token_id=list(end_ids), pad_token_id=0
        )
        if self.has_static_cache:
            settings.cache_implementation = "static"
            settings.disable_compile = not self.is_compiled
        if self.is_compiled:
            settings.compile_config = CompileConfig(fullgraph=False, mode="default")
            settings.compile_config._compile_all_devices = True
        follower = _Follower(self.sampler(workload.sampling), uniforms.to(model.device))
        output = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            logits_processor=LogitsProcessorList([follower]),
            generation_config=settings,
        )
        return [_until_end(row, end_ids) for row in output[:, width:].tolist()]


class _Follower(LogitsProcessor):
    """Makes greedy search follow a sampler."""

    def __init__(self, choose: Choose, uniforms: Tensor) -> None:
        self._choose = choose
        self._uniforms = uniforms
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids = self._choose(scores, self._uniforms[:, self._step])
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter_(-1, ids[:, None], 0.0)


def continuous(workload: Workload) -> Completions:
    """Transformers' continuous batching over paged attention, with its own sampling: other tokens, as many of them."""
    model = workload.model
    end_ids = end_of_sequence_ids(model, workload.tokenizer)
    settings = GenerationConfig(
        do_sample=True,
        temperature=workload.sampling.sampling_temperature,
        top_k=workload.sampling.sampling_top_k,
        top_p=workload.sampling.sampling_top_p,
        max_new_tokens=workload.sampling.max_new_tokens,
        eos_token_id=end_ids[0],
        pad_token_id=0,
    )
    model.set_attn_implementation("sdpa")
    try:
        outputs = model.generate_batch(
            inputs=[list(request.prompt_ids) for request in workload.requests],
            generation_config=settings,
            progress_bar=False,
        )
    finally:
        model.set_attn_implementation(VARLEN)
    return [tuple(output.generated_tokens) for output in outputs.values()]


def _until_end(ids: list[int], end_ids: Sequence[int]) -> tuple[int, ...]:
    length = next((step + 1 for step, token in enumerate(ids) if token in end_ids), len(ids))
    return tuple(ids[:length])


BEFORE = "before: generate"
CONTINUOUS = "generate_batch (continuous)"
CURRENT = "now: TransformersEngine"
PROVIDERS: dict[str, Callable[[Workload], Completions]] = {
    BEFORE: Generate(SortedSampler),
    "generate, the new sampler": Generate(lambda sampling: lambda logits, u: TokenSampler(sampling)(logits, u).ids),
    "generate, static cache": Generate(SortedSampler, has_static_cache=True),
    "generate, static cache, compiled": Generate(SortedSampler, has_static_cache=True, is_compiled=True),
    CONTINUOUS: continuous,
    CURRENT: current,
}
