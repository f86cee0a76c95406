"""The decoding loop: rows that have stopped leave the batch, waiting requests take their places."""

from __future__ import annotations

import inspect
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.distributed.uploads import to_device, upload
from sgsd_lightning.engines.base import GenerationRequest
from sgsd_lightning.engines.cached_rows import CachedRows
from sgsd_lightning.engines.row_inputs import RowInputs
from sgsd_lightning.engines.sampling import SampledTokens, TokenSampler
from sgsd_lightning.types import SamplingSettings

_NUMBERS_PER_TOKEN = 4
_REFILL_FRAC = 0.25
"""Waiting requests join once they make up this share of the batch, since their prompts cost a forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """The size of a batch."""

    batch_size: int
    max_batch_tokens: int
    """The most rows times the longest length that one of them may reach."""


@dataclass(kw_only=True, slots=True)
class _Row:
    place: int
    """Index into the requests."""
    request: GenerationRequest
    max_new_tokens: int
    numbers: array[float] = field(default_factory=lambda: array("d"))
    """Id, log-probability, sampling log-probability and kept mass of each token: compact however long it gets."""
    is_finished: bool = False

    @property
    def num_sampled(self) -> int:
        return len(self.numbers) // _NUMBERS_PER_TOKEN

    @property
    def num_tokens(self) -> int:
        return len(self.request.prompt_ids) + self.num_sampled

    @property
    def num_tokens_at_most(self) -> int:
        return len(self.request.prompt_ids) + self.max_new_tokens


class Decoder:
    """Samples a completion for each request with one key-value cache whose rows come and go.

    Every pass of the loop is one forward pass of the model: over the prompts of new rows, or over one token per row.
    A prompt that several new rows share is computed once.

    Args:
        model: In evaluation mode.
        sampling: How tokens are chosen.
        limits: The size of a batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sampling: SamplingSettings,
        limits: BatchLimits,
    ) -> None:
        self._model = model
        self._sampling = sampling
        self._sampler = TokenSampler(sampling)
        self._limits = limits
        parameters = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._options = {"use_cache": True, **({"logits_to_keep": 1} if "logits_to_keep" in parameters else {})}
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._cached: CachedRows | None = None
        self._inputs: RowInputs | None = None

    def run(self, requests: Sequence[GenerationRequest]) -> list[SampledTokens]:
        """Return the sampled tokens per request, [T] on the CPU, the end-of-sequence token included."""
        found = dict(self.finished(requests))
        return [found[place] for place in range(len(requests))]

    @torch.no_grad()
    def finished(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, SampledTokens]]:
        """Yield (index of the request, sampled tokens) as rows end."""
        rows = [
            _Row(place=place, request=request, max_new_tokens=self._sampling.max_new_tokens)
            for place, request in enumerate(requests)
        ]
        # the longest prompt first: rows that come later fit into the width that is there
        self._waiting = deque(sorted(rows, key=lambda row: -len(row.request.prompt_ids)))
        while self._rows or self._waiting:
            admitted = self._admit()
            if admitted:
                self._prefill(admitted)
            else:
                self._decode()
            yield from [(row.place, _sampled(row)) for row in self._rows if row.is_finished]
            self._drop_finished()

    def _admit(self) -> list[_Row]:
        """Return the waiting rows whose prompts are computed next; none while the batch is full enough."""
        if not self._waiting or (self._cached is not None and not self._cached.can_be_cut):
            return []
        longest = max((row.num_tokens_at_most for row in self._rows), default=0)
        num_new = 0
        for row in self._waiting:
            longest = max(longest, row.num_tokens_at_most)
            num_rows = len(self._rows) + num_new + 1
            fits = num_rows <= self._limits.batch_size and num_rows * longest <= self._limits.max_batch_tokens
            if not fits and num_rows > 1:  # a request that is too long for any batch is decoded alone
                break
            num_new += 1
        if num_new < _REFILL_FRAC * (len(self._rows) + num_new):
            return []
        return [self._waiting.popleft() for _ in range(num_new)]

    def _prefill(self, rows: list[_Row]) -> None:
        prompts = [row.request.prompt_ids for row in rows]
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        width = max(len(prompt) for prompt in places)
        device = self._model.device
        mask = upload([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in places], torch.int64, device)
        # what stands in padded places is never read
        ids = upload([[0] * (width - len(prompt)) + list(prompt) for prompt in places], torch.int64, device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits, cache = self._forward({"input_ids": ids, "attention_mask": mask, "position_ids": positions})
        new = CachedRows(cache, mask)
        if len(places) < len(rows):
            owners = [places[prompt] for prompt in prompts]
            index = upload(owners, torch.int64, device)
            new.select(index)
            logits = logits[index]
        uniforms = to_device(torch.stack([_uniforms(row.request, row.max_new_tokens) for row in rows]), device)
        inputs = self._sample(logits, rows, RowInputs.of(uniforms))
        if self._cached is None or self._inputs is None:
            self._cached, self._inputs = new, inputs
        else:
            self._cached.join(new)
            self._inputs = self._inputs.joined_by(inputs)
        self._rows.extend(rows)

    def _decode(self) -> None:
        cached, inputs = self._cached, self._inputs
        assert cached is not None  # rows are admitted where there are none
        assert inputs is not None
        logits, _ = self._forward({**cached.append(inputs.last_ids), "past_key_values": cached.cache})
        self._inputs = self._sample(logits, self._rows, inputs)

    def _forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, object]:
        """Return the next token's logits [B, V] and the cache."""
        if not self._takes_positions:
            inputs = {name: value for name, value in inputs.items() if name != "position_ids"}
        output = self._model(**inputs, **self._options)
        if getattr(output, "past_key_values", None) is None:
            raise ValueError(
                f"policy: {type(self._model).__name__} gives no past_key_values, from which rollouts are decoded; take "
                "a model with attention layers"
            )
        return output.logits[:, -1], output.past_key_values

    def _sample(self, logits: Tensor, rows: list[_Row], inputs: RowInputs) -> RowInputs:
        tokens = self._sampler(logits, inputs.next_uniforms)
        # one transfer, in which float64 holds ids and float32 numbers exactly
        fields = (tokens.ids, tokens.logprob, tokens.sampling_logprob, tokens.kept_mass)
        numbers = torch.stack([values.double() for values in fields], dim=-1).tolist()
        for row, values in zip(rows, numbers, strict=True):
            row.numbers.extend(values)
            row.is_finished = int(values[0]) in row.request.stop_ids or row.num_sampled == row.max_new_tokens
        return inputs.followed_by(tokens.ids)

    def _drop_finished(self) -> None:
        going = [place for place, row in enumerate(self._rows) if not row.is_finished]
        if len(going) == len(self._rows):
            return
        self._rows = [self._rows[place] for place in going]
        if not going or self._cached is None or self._inputs is None:
            self._cached = self._inputs = None
            return
        if self._cached.can_be_cut:
            # the last sampled token is not cached yet
            self._cached.cut(max(row.num_tokens for row in self._rows) - 1)
        index = upload(going, torch.int64, self._model.device)
        self._cached.select(index)
        self._inputs = self._inputs.select(index)


def _uniforms(request: GenerationRequest, num_steps: int) -> Tensor:
    """Draw one number per step from the request's seed; the first n numbers do not depend on ``num_steps``."""
    generator = torch.Generator().manual_seed(request.seed)
    uniforms = torch.rand(request.first_uniform + num_steps, generator=generator, dtype=torch.float64)
    return uniforms[request.first_uniform :]


def _sampled(row: _Row) -> SampledTokens:
    ids, logprob, sampling_logprob, kept_mass = torch.tensor(row.numbers, dtype=torch.float64).view(-1, 4).unbind(-1)
    return SampledTokens(
        ids=ids.long(),
        logprob=logprob.float(),
        sampling_logprob=sampling_logprob.float(),
        kept_mass=kept_mass.float(),
    )
