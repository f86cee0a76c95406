"""Samples the next token from tempered and filtered logits, by a given uniform number per row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sgsd_lightning.types import SamplingSettings

BLOCK_TOKENS = 512
"""Cumulative masses are searched over blocks of this many tokens, then within one block."""
LARGE_VOCABULARY = 8192
LIKELY_TOKENS = (256, 4096)
"""Top-p tries these numbers of most probable tokens first; only a flatter distribution is sorted as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTokens:
    """The tokens chosen at one step for B rows; all fields are [B]."""

    ids: Tensor
    """int64."""
    logprob: Tensor
    """float32 nats: under the model itself."""
    sampling_logprob: Tensor
    """float32 nats: under the tempered and filtered distribution that was sampled from."""
    kept_mass: Tensor
    """float32, in (0, 1]: what the filters kept of the tempered distribution."""


class TokenSampler:
    """Samples by inverse cumulative distribution, in the order of token ids. Temperature 0 takes the most probable one.

    The filters are those of transformers, in its order: temperature, top-k, top-p, min-p. Probabilities are float32
    and added up in float64; no cumulative sum, and with filters no sort, runs over the whole vocabulary.
    """

    def __init__(self, sampling: SamplingSettings) -> None:
        self.is_greedy = sampling.sampling_temperature == 0
        self._temperature = sampling.sampling_temperature
        self._top_k = sampling.sampling_top_k
        self._top_p = sampling.sampling_top_p
        self._log_min_p = math.log(sampling.sampling_min_p) if sampling.sampling_min_p > 0 else -math.inf

    def __call__(self, logits: Tensor, uniforms: Tensor) -> SampledTokens:
        """Choose one token per row.

        Args:
            logits: [B, V] floating.
            uniforms: [B] float64 in [0, 1), one per row.
        """
        own = _Masses(logits.float())
        if self.is_greedy:
            ids = own.logits.argmax(-1)
            certain = torch.ones_like(own.logits[:, 0])
            return SampledTokens(
                ids=ids, logprob=own.logprob(ids), sampling_logprob=torch.zeros_like(certain), kept_mass=certain
            )
        tempered = own if self._temperature == 1 else _Masses(own.logits / self._temperature)
        chosen = self._among_all(tempered, uniforms) if self._keeps_many else self._among_few(tempered, uniforms)
        kept_mass = chosen.kept / tempered.total
        return SampledTokens(
            ids=chosen.ids,
            logprob=own.logprob(chosen.ids),
            sampling_logprob=(tempered.logprob(chosen.ids) - kept_mass.log()).clamp(max=0.0).float(),
            kept_mass=kept_mass.clamp(max=1.0).float(),
        )

    @property
    def _keeps_many(self) -> bool:
        return self._top_k == 0 and self._top_p == 1

    def _among_all(self, tempered: _Masses, uniforms: Tensor) -> _Choice:
        """Sample without top-k and top-p; min-p may filter."""
        if self._log_min_p == -math.inf:
            return _Choice(ids=_search_all(tempered.masses, tempered.block_sums, uniforms), kept=tempered.total)
        masses = tempered.masses.masked_fill(tempered.logits < tempered.top + self._log_min_p, 0.0)
        block_sums = _block_sums(masses)
        return _Choice(ids=_search_all(masses, block_sums, uniforms), kept=block_sums.sum(-1))

    def _among_few(self, tempered: _Masses, uniforms: Tensor) -> _Choice:
        """Sample under top-k or top-p, which leave few tokens to work on."""
        values, ids = self._most_probable(tempered)
        masses = (values - tempered.top).double().exp()
        if self._top_p < 1:
            total = masses.sum(-1, keepdim=True) if self._top_k else tempered.total[:, None]
            masses.masked_fill_(_cumulative(masses) - masses >= self._top_p * total, 0.0)
        masses.masked_fill_(values < tempered.top + self._log_min_p, 0.0)
        ids, masses = _in_token_order(ids, masses, tempered.logits.shape[-1])
        place = _search(masses, uniforms * masses.sum(-1))
        return _Choice(ids=ids.gather(-1, place[:, None])[:, 0], kept=masses.sum(-1))

    def _most_probable(self, tempered: _Masses) -> tuple[Tensor, Tensor]:
        """Return falling logits and their ids, [B, n] each, at least all that filters keep; -inf if dropped."""
        num_tokens = tempered.logits.shape[-1]
        if self._top_k:
            values, ids = tempered.logits.topk(min(self._top_k, num_tokens))
            threshold = values[:, -1:]
            # tokens that tie with the last one are kept too, as transformers does
            num_kept = int((tempered.logits >= threshold).sum(-1).max())
            if num_kept > values.shape[-1]:
                values, ids = tempered.logits.topk(num_kept)
            return values.masked_fill(values < threshold, -torch.inf), ids
        for num_likely in LIKELY_TOKENS:
            if num_likely < num_tokens:
                values, ids = tempered.logits.topk(num_likely)
                covered = (values - tempered.top).double().exp().sum(-1)
                if bool((covered >= self._top_p * tempered.total).all()):
                    return values, ids
        return tempered.logits.sort(-1, descending=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choice:
    ids: Tensor
    """[B] int64."""
    kept: Tensor
    """[B] float64: the mass of the kept tokens, in units of the most probable token's mass."""


class _Masses:
    """Probabilities of B rows in units of the most probable token's, and their sums."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # [B, V] float32
        self.top = logits.amax(-1, keepdim=True)
        self.masses = (logits - self.top).exp_()  # [B, V] float32
        self.block_sums = _block_sums(self.masses)
        self.total = self.block_sums.sum(-1)  # [B] float64

    def logprob(self, ids: Tensor) -> Tensor:
        """[B] float32 nats."""
        return ((self.logits.gather(-1, ids[:, None]) - self.top)[:, 0].double() - self.total.log()).float()


def _in_token_order(ids: Tensor, masses: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Sort ids and masses, both [B, n], by id within each row."""
    if ids.shape[-1] < num_tokens:
        ids, order = ids.sort(-1)
        return ids, masses.gather(-1, order)
    return torch.arange(num_tokens, device=ids.device).expand_as(ids), torch.empty_like(masses).scatter_(
        -1, ids, masses
    )


def _block_sums(masses: Tensor) -> Tensor:
    """Sum masses per block: [B, blocks] float64; the last block may be partial or empty."""
    if masses.shape[-1] < LARGE_VOCABULARY:
        return masses.sum(-1, keepdim=True, dtype=torch.float64)
    num_whole = masses.shape[-1] // BLOCK_TOKENS * BLOCK_TOKENS
    blocks = masses[:, :num_whole].unflatten(-1, (-1, BLOCK_TOKENS)).sum(-1, dtype=torch.float64)
    rest = masses[:, num_whole:].sum(-1, keepdim=True, dtype=torch.float64)
    return torch.cat([blocks, rest], dim=-1)


def _search_all(masses: Tensor, block_sums: Tensor, uniforms: Tensor) -> Tensor:
    """[B] int64: the first token at which the cumulative mass exceeds the row's share of it."""
    if masses.shape[-1] < LARGE_VOCABULARY:
        return _search(masses.double(), uniforms * block_sums.sum(-1))
    targets = uniforms * block_sums.sum(-1)
    block = _search(block_sums, targets)
    before = _cumulative(block_sums).gather(-1, block[:, None]) - block_sums.gather(-1, block[:, None])
    tokens = block[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=masses.device)
    is_real = tokens < masses.shape[-1]
    within = masses.gather(-1, tokens.clamp(max=masses.shape[-1] - 1)).double().masked_fill_(~is_real, 0.0)
    return block * BLOCK_TOKENS + _search(within, (targets - before[:, 0]).clamp(min=0.0))


def _search(masses: Tensor, targets: Tensor) -> Tensor:
    """[B] int64: the first place in each row of [B, n] float64 at which the cumulative mass exceeds the target."""
    cumulative = _cumulative(masses)
    places = torch.searchsorted(cumulative, targets[:, None], right=True)
    # rounding can lift the target to the total itself, past the last token with any probability
    last = (cumulative < cumulative[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum(places, last)[:, 0]


def _cumulative(masses: Tensor) -> Tensor:
    """Cumulative sums of [B, n] float64 along each row; of its own where torch's would refuse to be deterministic."""
    if masses.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _doubling_sums(masses)
    return masses.cumsum(-1)


def _doubling_sums(masses: Tensor) -> Tensor:
    """Cumulative sums in log2(n) additions of whole rows, in an order that never changes."""
    sums, distance = masses, 1
    while distance < masses.shape[-1]:
        sums = torch.cat([sums[..., :distance], sums[..., distance:] + sums[..., :-distance]], dim=-1)
        distance *= 2
    return sums
