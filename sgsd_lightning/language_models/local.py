"""Language models on this machine: any causal LM from a folder or the hub, and the policy that is being trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.distributed.gathered_weights import gathered_weights
from sgsd_lightning.encoding import encode_chats
from sgsd_lightning.engines import GenerationRequest, TransformersEngine, end_of_sequence_ids
from sgsd_lightning.language_models.base import TOO_LATE, Answer, LanguageModel
from sgsd_lightning.language_models.identity import tokenizer_digest, weights_digest
from sgsd_lightning.policy import PolicySource
from sgsd_lightning.seeding import derive_seed
from sgsd_lightning.types import FinishReason, Messages, SamplingSettings
from sgsd_lightning.types.arguments import require_at_least


class TransformersChat(LanguageModel):
    """Answers by a loaded model. An answer depends on its chat, the seed and the weights alone.

    Its identity holds a digest of the current weights, so that a cache never serves the answers of older ones.

    Args:
        sampling: how answers are sampled; None: at most 1024 tokens at temperature 0.7.
        template_args: arguments of the chat template, such as ``{enable_thinking: false}``.
        batch_size: chats per batch; the deadline is checked between batches.
        seed: of the sampling.
    """

    computes_here = True

    def __init__(
        self,
        sampling: SamplingSettings | None = None,
        template_args: dict[str, Any] | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        require_at_least(1, "language_model.batch_size", batch_size)
        self.sampling = sampling or SamplingSettings(max_new_tokens=1024, sampling_temperature=0.7)
        self.template_args: Mapping[str, Any] = template_args or {}
        self.batch_size = batch_size
        self.seed = seed

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return the model, on the device where it runs, and its tokenizer."""
        raise NotImplementedError

    def identity(self) -> Mapping[str, Any]:
        model, tokenizer = self.loaded()
        return {
            "weights": self._weights_digest(model),
            "tokenizer": tokenizer_digest(tokenizer),
            "template_args": dict(self.template_args),
            "sampling": asdict(self.sampling),
            "seed": self.seed,
        }

    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        model, tokenizer = self.loaded()
        prompts = [self._prompt(tokenizer, chat, attempt) for chat in chats]
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62
        fitting = [i for i, p in enumerate(prompts) if len(p.ids) + self.sampling.max_new_tokens <= room]
        for index in sorted(set(range(len(chats))) - set(fitting)):
            length = len(prompts[index].ids)
            yield index, Answer(error=f"the prompt of {length} tokens leaves no room for an answer in {room} positions")
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            if deadline is not None and time.monotonic() >= deadline:
                yield from ((index, Answer(error=TOO_LATE)) for index in batch)
                continue
            completions = _complete(model, tokenizer, [prompts[index] for index in batch], self.sampling)
            yield from zip(batch, map(self._answer, completions), strict=True)

    def _weights_digest(self, model: PreTrainedModel) -> str:
        """Digest the current weights, which may have changed since the last call."""
        return weights_digest(model)

    def _answer(self, completion: _Completed) -> Answer:
        if completion.is_whole:
            return Answer(text=completion.text)
        limit = self.sampling.max_new_tokens
        return Answer(error=f"cut off after {limit} tokens (language_model.sampling.max_new_tokens)")

    def _prompt(self, tokenizer: PreTrainedTokenizerBase, chat: Messages, attempt: int) -> _Prompt:
        (ids,) = encode_chats(tokenizer, [chat], self.template_args)
        content = "\n".join(message["content"] for message in chat)
        return _Prompt(ids, derive_seed("writer", self.seed + attempt, content))


class _Prompt(NamedTuple):
    ids: tuple[int, ...]
    seed: int


class _Completed(NamedTuple):
    text: str
    is_whole: bool
    """Whether it ended with an end-of-sequence token, not at ``max_new_tokens``."""


def _complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[_Prompt],
    sampling: SamplingSettings,
) -> list[_Completed]:
    """Sample one completion per prompt, by the rollout engine."""
    stop_ids = end_of_sequence_ids(model, tokenizer)
    requests = [
        GenerationRequest(prompt_ids=prompt.ids, seed=prompt.seed, stop_ids=stop_ids, label="a chat")
        for prompt in prompts
    ]
    return [
        _Completed(
            tokenizer.decode(list(completion.ids), skip_special_tokens=True, clean_up_tokenization_spaces=False),
            completion.finish_reason is FinishReason.STOPPED,
        )
        for completion in TransformersEngine().decode(model, requests, sampling)
    ]


class LocalModel(TransformersChat):
    """A model beside the policy, loaded when it is first asked.

    Args:
        policy: the source of model and tokenizer.
        device: where it runs; None: a GPU if there is one.
        sampling: as for `TransformersChat`.
        template_args: as for `TransformersChat`.
        batch_size: as for `TransformersChat`.
        seed: as for `TransformersChat`.
    """

    def __init__(
        self,
        policy: PolicySource,
        device: str | None = None,
        sampling: SamplingSettings | None = None,
        template_args: dict[str, Any] | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(sampling, template_args, batch_size, seed)
        self.policy = policy
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._digest: str | None = None

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            tokenizer = self.policy.load_tokenizer()
            model: Any = self.policy.load_model()
            self._loaded = model.to(self.device).requires_grad_(False), tokenizer
        return self._loaded

    def _weights_digest(self, model: PreTrainedModel) -> str:
        """Digest the weights once: they never change."""
        if self._digest is None:
            self._digest = weights_digest(model)
        return self._digest


class TrainedPolicy(TransformersChat):
    """The policy that is being trained, with its current weights, as in the paper.

    Only the first process generates. Under FSDP2 all processes gather the whole model for it in :meth:`session`; no
    collective runs while it generates.
    """

    def __init__(
        self,
        sampling: SamplingSettings | None = None,
        template_args: dict[str, Any] | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(sampling, template_args, batch_size, seed)
        self._attached: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def attach(self, model: Any, tokenizer: Any) -> None:
        self._attached = model, tokenizer

    def session(self) -> AbstractContextManager[None]:
        return gathered_weights(self.loaded()[0])

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._attached is None:
            raise ValueError(
                "language_model TrainedPolicy is the policy of a training run, and there is none here; "
                "use LocalModel with the policy's source, or an exported folder"
            )
        return self._attached
