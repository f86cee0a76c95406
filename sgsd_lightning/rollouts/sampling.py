"""Choosing the next token: tempered, filtered, and by a given uniform number, so that a row's choice is its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sgsd_lightning.types import SamplingSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTokens:
    """What was chosen at one step for each of B rows; all [B]."""

    ids: Tensor
    """int64."""
    logprob: Tensor
    """float32 nats: under the model itself."""
    sampling_logprob: Tensor
    """float32 nats: under the tempered and filtered distribution that was sampled from."""
    kept_mass: Tensor
    """float32, in (0, 1]: what the filters kept of the tempered distribution."""


class TokenSampler:
    """Samples by inverse cumulative distribution. Temperature 0 takes the most probable token.

    The filters are those of transformers, in its order: temperature, top-k, top-p, min-p.
    """

    def __init__(self, sampling: SamplingSettings) -> None:
        self.is_greedy = sampling.sampling_temperature == 0
        self._temper = LogitsProcessorList()
        self._filters = LogitsProcessorList()
        if not self.is_greedy and sampling.sampling_temperature != 1:
            self._temper.append(TemperatureLogitsWarper(sampling.sampling_temperature))
        if sampling.sampling_top_k > 0:
            self._filters.append(TopKLogitsWarper(sampling.sampling_top_k))
        if sampling.sampling_top_p < 1:
            self._filters.append(TopPLogitsWarper(sampling.sampling_top_p))
        if sampling.sampling_min_p > 0:
            self._filters.append(MinPLogitsWarper(sampling.sampling_min_p))

    def __call__(self, logits: Tensor, uniforms: Tensor) -> SampledTokens:
        """Choose one token a row.

        Args:
            logits: [B, V] floating.
            uniforms: [B] float64 in [0, 1), one a row.
        """
        logits = logits.float()
        own = logits.log_softmax(-1)
        if self.is_greedy:
            ids = logits.argmax(-1)
            return SampledTokens(
                ids=ids,
                logprob=_at(own, ids),
                sampling_logprob=torch.zeros_like(own[:, 0]),
                kept_mass=torch.ones_like(own[:, 0]),
            )
        tempered = self._temper(None, logits)
        filtered = self._filters(None, tempered)
        ids = _inverse_cdf(filtered, uniforms)
        kept_mass = tempered.softmax(-1).masked_fill(filtered == -torch.inf, 0.0).sum(-1)
        return SampledTokens(
            ids=ids,
            logprob=_at(own, ids),
            sampling_logprob=_at(filtered.log_softmax(-1), ids),
            kept_mass=kept_mass.clamp(max=1.0),
        )


def _inverse_cdf(logits: Tensor, uniforms: Tensor) -> Tensor:
    """[B] int64: the first token at which the cumulative probability exceeds the row's uniform number."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    ids = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    # rounding can lift the product to the total itself, past the last token with any probability
    last = (cumulative < total).sum(-1, keepdim=True)
    return torch.minimum(ids, last)[:, 0]


def _at(values: Tensor, ids: Tensor) -> Tensor:
    return values.gather(-1, ids[:, None])[:, 0]


class RecordingSampler(LogitsProcessor):
    """Makes transformers' greedy search follow our sampler, and keeps what it chose, a few numbers a step.

    Args:
        sampler: Chooses.
        uniforms: [B, steps] float64 in [0, 1), on the model's device.
    """

    def __init__(self, sampler: TokenSampler, uniforms: Tensor) -> None:
        self._sampler = sampler
        self._uniforms = uniforms
        self.steps: list[SampledTokens] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = self._sampler(scores, self._uniforms[:, len(self.steps)])
        self.steps.append(tokens)
        return torch.full_like(scores, -torch.inf).scatter_(-1, tokens.ids[:, None], 0.0)
