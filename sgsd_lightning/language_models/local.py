"""Language models on this machine: any causal LM from a folder or the hub, and the policy that is being trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.distributed.gathered_weights import gathered_weights
from sgsd_lightning.engines import GenerationRequest, TransformersEngine, end_of_sequence_ids
from sgsd_lightning.language_models.base import Answer, LanguageModel
from sgsd_lightning.policy import PolicySource
from sgsd_lightning.seeding import derive_seed
from sgsd_lightning.types import FinishReason, Messages, SamplingSettings

TOO_LATE = "not answered before the deadline"


class TransformersModel(LanguageModel):
    """Answers by a loaded model. A chat's answer depends on that chat, the seed and the weights alone.

    Args:
        sampling: how answers are sampled; None: at most 1024 tokens at temperature 0.7.
        template_args: for the chat template, such as ``{enable_thinking: false}``.
        batch_size: chats answered at a time; between batches the deadline is looked at.
        seed: what the sampling derives from.
    """

    computes_here = True

    def __init__(
        self,
        sampling: SamplingSettings | None = None,
        template_args: dict[str, Any] | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"language_model.batch_size must be at least 1; got {batch_size}")
        self.sampling = sampling or SamplingSettings(max_new_tokens=1024, sampling_temperature=0.7)
        self.template_args: Mapping[str, Any] = template_args or {}
        self.batch_size = batch_size
        self.seed = seed

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model, where it is to run, and its tokenizer."""
        raise NotImplementedError

    def answers(self, chats: Sequence[Messages], deadline: float | None = None) -> Iterator[tuple[int, Answer]]:
        model, tokenizer = self.loaded()
        stop_ids = end_of_sequence_ids(model, tokenizer)
        requests = [self._request(tokenizer, chat, stop_ids) for chat in chats]
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62
        fitting = [i for i, r in enumerate(requests) if len(r.prompt_ids) + self.sampling.max_new_tokens <= room]
        for index in sorted(set(range(len(chats))) - set(fitting)):
            length = len(requests[index].prompt_ids)
            yield index, Answer(error=f"the prompt of {length} tokens leaves no room for an answer in {room} positions")
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            if deadline is not None and time.monotonic() >= deadline:
                yield from ((index, Answer(error=TOO_LATE)) for index in batch)
                continue
            yield from zip(batch, self._answered(model, tokenizer, [requests[i] for i in batch]), strict=True)

    def _answered(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[GenerationRequest]
    ) -> list[Answer]:
        completions = TransformersEngine().decode(model, requests, self.sampling)
        limit = self.sampling.max_new_tokens
        return [
            Answer(
                text=tokenizer.decode(
                    list(completion.ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
            )
            if completion.finish_reason is FinishReason.STOPPED
            else Answer(error=f"cut off after {limit} tokens (language_model.sampling.max_new_tokens)")
            for completion in completions
        ]

    def _request(
        self, tokenizer: PreTrainedTokenizerBase, chat: Messages, stop_ids: tuple[int, ...]
    ) -> GenerationRequest:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in chat], tokenize=False, add_generation_prompt=True, **self.template_args
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        content = "\n".join(message["content"] for message in chat)
        return GenerationRequest(
            prompt_ids=tuple(ids), seed=derive_seed("writer", self.seed, content), stop_ids=stop_ids, label="a chat"
        )


class LocalModel(TransformersModel):
    """A model of its own, loaded at its first answer.

    Args:
        policy: where it comes from: any model, or the policy that is trained elsewhere.
        device: where it runs; None: a GPU if there is one.
        sampling: as for `TransformersModel`.
        template_args: as for `TransformersModel`.
        batch_size: as for `TransformersModel`.
        seed: as for `TransformersModel`.
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

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            tokenizer = self.policy.load_tokenizer()
            model: Any = self.policy.load_model()
            self._loaded = model.to(self.device).requires_grad_(False), tokenizer
        return self._loaded


class TrainedPolicy(TransformersModel):
    """The policy that is being trained, with its weights of the moment, as in the paper.

    The first process writes alone. Under FSDP2 it needs the whole model for that, which all processes gather in
    :meth:`session`; no collective runs while it writes.
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
