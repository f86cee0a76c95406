"""A self-test at load time: packed scoring must agree with the model's own logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.scoring.attention import row_layout, runs_on_cpu
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import TokenSequence

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
        ValueError: if the two differ by more than rounding.
    """
    with _attention_for_cpu(model):
        bind_score(model)
        batch = pack(_SEQUENCES, row_layout(model.config)).to(model.device)
        logprob = model.score(batch, implementation="chunked").logprob
        expected = torch.cat([_own_logprob(model, sequence) for sequence in _SEQUENCES])
    gap = (logprob - expected).abs().max().item()
    if not gap <= _TOLERANCE.get(model.dtype, 1e-3):
        raise ValueError(
            f"{type(model).__name__} does something between its hidden states and its logits that is not known here: "
            f"log-probabilities computed from hidden states differ from its own by {gap:.3g} nats"
        )


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
