"""The method ``score`` of a policy's model: trunk and head in one forward pass, scalars per token out."""

from __future__ import annotations

import types
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from sgsd_kernels import Implementation, linear_divergence, linear_logprob, support_logprob, teacher_support
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import PreTrainedModel

from sgsd_lightning.engines.positions import rotary_limit
from sgsd_lightning.scoring.attention import check_backward, packed_forward, segment_arguments
from sgsd_lightning.scoring.compilation import compiled_layers
from sgsd_lightning.scoring.head import head_arguments
from sgsd_lightning.scoring.packing import PackedBatch
from sgsd_lightning.types import DivergenceRequest


class StudentSupport(NamedTuple):
    """The teachers' local supports that a student is to be compared on, for N completion tokens."""

    ids: Tensor
    """[N, K, S] int64."""
    mask: Tensor
    """[N, K, S] bool: slots in use."""


class StudentDivergence(NamedTuple):
    """The teachers' distributions to compare a student with, for N completion tokens."""

    hidden: Tensor
    """[K, N, D]: the teachers' last hidden states."""
    weight: Tensor | None
    """[V, D]: the teachers' head; None if it is the student's."""
    mixture: Tensor
    """[N, K] float32, adding up to 1 over K."""
    mask: Tensor
    """[N] bool: the tokens that are compared."""
    request: DivergenceRequest


class HeadScores(NamedTuple):
    """Scores of the N completion tokens of one forward pass. A tuple of tensors, which FSDP can traverse."""

    logprob: Tensor
    """[N] float32 nats."""
    entropy: Tensor | None = None
    """[N] float32 nats, no gradient."""
    support_logprob: Tensor | None = None
    """[N, K, S] (student) or [N, S] (teacher) float32 nats, renormalised on the support, -inf in unused slots."""
    support_ids: Tensor | None = None
    """[N, S] int64 (teacher only)."""
    target_slot: Tensor | None = None
    """[N] int64 (teacher only)."""
    hidden: Tensor | None = None
    """[N, D] (teacher only)."""
    divergence: Tensor | None = None
    """[N] float32 nats (student only)."""


def score(
    self: PreTrainedModel,
    batch: PackedBatch,
    *,
    implementation: Implementation = "auto",
    entropy: bool = False,
    support_top_k: int = 0,
    support: StudentSupport | None = None,
    keeps_hidden: bool = False,
    divergence: StudentDivergence | None = None,
) -> HeadScores:
    """Score the completion tokens of a batch; bound to a model by :func:`bind_score`.

    Hidden states never leave the model's forward: only the positions that predict a completion token reach the head,
    and per token only scalars come out.

    Args:
        self: The causal LM.
        batch: On the model's device.
        implementation: How the head computes log-probabilities.
        entropy: Whether to return entropies.
        support_top_k: Above 0, also return the local support (as a teacher).
        support: Also return log-probabilities on these supports (as a student).
        keeps_hidden: Also return the hidden states that the head was given (as a teacher).
        divergence: Also return the divergence from these teachers (as a student).

    Raises:
        ValueError: for a sequence beyond what the model's position embeddings read alike whatever its neighbours.
    """
    check_backward(self)
    _check_positions(self, batch)
    segments = batch.segments
    with compiled_layers(self), nullcontext() if segments is None else packed_forward():
        outputs = self.get_decoder()(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            **({} if segments is None else segment_arguments(self.config._attn_implementation, segments)),
        )
    hidden = outputs.last_hidden_state.flatten(0, 1)[batch.predicted_from]  # [N, D]
    head = head_arguments(self, hidden)
    output = linear_logprob(targets=batch.targets, entropy=entropy, implementation=implementation, **head)
    supports: dict[str, Any] = {"hidden": head["hidden"]} if keeps_hidden else {}
    if support_top_k > 0:
        local = teacher_support(
            targets=batch.targets, support_top_k=support_top_k, implementation=implementation, **head
        )
        supports |= {
            "support_logprob": local.logprob,
            "support_ids": local.ids,
            "target_slot": local.target_slot,
        }
    elif support is not None:
        # FSDP must not be given views, whose hooks an in-place operation would drop
        local_logprob = support_logprob(ids=support.ids, mask=support.mask, implementation=implementation, **head)
        supports |= {"support_logprob": local_logprob.clone()}
    if divergence is not None:
        supports["divergence"] = _divergence(head, divergence, implementation)
    return HeadScores(output.logprob, output.entropy, **supports)


def _check_positions(model: PreTrainedModel, batch: PackedBatch) -> None:
    limit = rotary_limit(model.config)
    # a device synchronisation, for these models alone
    if limit is not None and (num := int(batch.position_ids.max()) + 1) > limit.num:
        raise ValueError(
            f"a sequence to score has {num} tokens, beyond {limit.what}; lower prompts.max_prompt_tokens or "
            "sampling.max_new_tokens"
        )


def _divergence(head: dict[str, Any], asked: StudentDivergence, implementation: Implementation) -> Tensor:
    request = asked.request
    is_one = asked.hidden.shape[0] == 1
    return linear_divergence(
        head["hidden"],
        asked.hidden[0] if is_one else asked.hidden,
        head["weight"],
        bias=head["bias"],
        teacher_weight=asked.weight,
        teacher_bias=None if asked.weight is None else head["bias"],
        mixture_weights=None if is_one else asked.mixture,
        kind=request.kind,
        beta=request.beta,
        temperature=request.temperature * head["temperature"],
        softcap=head["softcap"],
        token_clip=request.token_clip,
        support_top_k=request.support_top_k,
        support_tail=request.support_tail,
        mask=asked.mask,
        implementation=implementation,
    )


def layer_features(model: PreTrainedModel, batch: PackedBatch, layers: Sequence[int]) -> Tensor:
    """[layers, N, D] float32: the outputs of these layers at the positions that predict a target."""
    segments = batch.segments
    with nullcontext() if segments is None else packed_forward():
        outputs = model.get_decoder()(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            output_hidden_states=True,
            **({} if segments is None else segment_arguments(model.config._attn_implementation, segments)),
        )
    return torch.stack([outputs.hidden_states[layer].flatten(0, 1)[batch.predicted_from].float() for layer in layers])


def bind_score(model: PreTrainedModel) -> None:
    """Give ``model`` the method ``score``; under FSDP2 one that gathers the root's parameters as forward does.

    May be called again, also after the model was sharded.
    """
    is_sharded = isinstance(model, FSDPModule)
    if getattr(model, "_score_is_bound_for", None) is is_sharded:
        return
    model.score = types.MethodType(score, model)
    register_fsdp_forward_method(model, "score")
    model._score_is_bound_for = is_sharded
