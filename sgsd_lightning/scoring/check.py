"""Self-tests at load time: scores and decoded batches are what a model's own logits give, one sequence at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.engines import GenerationRequest, TransformersEngine
from sgsd_lightning.scoring.architectures import is_packable
from sgsd_lightning.scoring.attention import row_layout, runs_on_cpu
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import SamplingSettings, TokenSequence

_SEQUENCES = (
    TokenSequence.causal((1, 2), (3, 4)),
    TokenSequence.causal((5,), (6,)),
    TokenSequence.causal((1, 2), (7, 8, 9)),
)
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}


@torch.no_grad()
def check_score(model: PreTrainedModel) -> None:
    """Compare ``score`` with the model's own logits on a few tokens, to catch unsupported architectures.

    Raises:
        ValueError: if the two differ by more than rounding, or the model does not run so.
    """
    with _attention_for_cpu(model):
        bind_score(model)
        batch = pack(_SEQUENCES, row_layout(model.config)).to(model.device)
        with _told_in_one_sentence(model, "scored"):
            logprob = model.score(batch, implementation="chunked").logprob
        expected = torch.cat([_own_logprob(model, sequence) for sequence in _SEQUENCES])
    if not _gap(logprob, expected) <= _TOLERANCE.get(model.dtype, 1e-3):
        raise ValueError(
            f"{type(model).__name__} does something between its hidden states and its logits that is not known here: "
            f"log-probabilities computed from hidden states differ from its own by {_gap(logprob, expected):.3g} nats"
        )


@torch.no_grad()
def check_decoding(model: PreTrainedModel) -> None:
    """Compare a few sampled tokens with the model's own logits, where layers may carry more than keys and values.

    Raises:
        ValueError: if rows of a batch that decodes together differ from each alone by more than rounding, or the model
            does not decode so.
    """
    if is_packable(model.config):
        return
    requests = [GenerationRequest(prompt_ids=tuple(range(2, 2 + length)), seed=length) for length in (7, 2)]
    with _attention_for_cpu(model), _told_in_one_sentence(model, "sampled from"):
        completions = TransformersEngine().decode(model, requests, SamplingSettings(max_new_tokens=3))
        expected = torch.cat(
            [
                _own_logprob(model, TokenSequence.causal(request.prompt_ids, completion.ids))
                for request, completion in zip(requests, completions, strict=True)
            ]
        ).cpu()
    gap = _gap(torch.cat([completion.logprobs for completion in completions]), expected)
    if not gap <= _TOLERANCE.get(model.dtype, 1e-3):
        raise ValueError(
            f"{type(model).__name__} cannot be sampled from: rows of a batch that decodes together differ by {gap:.3g} "
            "nats from each alone, as layers do that carry a state over padding"
        )


@contextmanager
def _told_in_one_sentence(model: PreTrainedModel, what: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if reason.startswith("policy"):
            raise  # one of ours
        raise ValueError(
            f"{type(model).__name__} cannot be {what} under policy.attention {model.config._attn_implementation} "
            f"({reason}); set it to auto, or take a decoder with attention over all tokens before, as Qwen3 and Llama "
            "are"
        ) from error


def _gap(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item()


def _own_logprob(model: PreTrainedModel, sequence: TokenSequence) -> Tensor:
    ids = torch.tensor([sequence.input_ids], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, list(sequence.predicted_from)].float()
    targets = torch.tensor(sequence.targets, device=model.device)
    return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]


@contextmanager
def _attention_for_cpu(model: PreTrainedModel) -> Iterator[None]:
    """Use SDPA while the model is on the CPU, where an attention chosen for a GPU may not run."""
    config = model.config
    chosen = config._attn_implementation
    if not runs_on_cpu(chosen) and model.device.type != "cuda":
        config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = chosen
