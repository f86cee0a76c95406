"""From log-ratios to stance, polarity, loss and its gradient in one launch: a program has a rollout to itself."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.triton_shared.arithmetic import exponential, exponential_minus_one, log_one_plus
from sgsd_kernels.triton_shared.catalogue import Specimen

BLOCK_ENTRIES = 2048
"""Log-ratios in registers at a time, over all contexts."""
NUM_WARPS = 4


def token_block(contexts: int) -> int:
    """Tokens that a program reads at a time under ``contexts`` (a power of two) contexts.

    At most 128: with 256 tokens and 8 contexts Triton 3.6 spills on Blackwell.
    """
    return max(16, min(128, BLOCK_ENTRIES // contexts))


@triton.jit
def _log_ratio(
    student,
    teacher,
    mask,
    tokens,
    length,
    contexts,
    context_stride,
    is_present,
):
    """(log-ratio [contexts, tokens], 0 where a token does not count, and whether it counts)."""
    exists = tokens < length
    counts = tl.load(mask + tokens, mask=exists, other=0) != 0
    own = tl.load(student + tokens, mask=exists, other=0.0)
    every = is_present[:, None] & counts[None, :]
    theirs = tl.load(teacher + contexts[:, None].to(tl.int64) * context_stride + tokens[None, :], mask=every, other=0.0)
    return tl.where(every, theirs - own[None, :], 0.0), every, counts


@triton.jit(do_not_specialize=["context_stride", "num_contexts"])
def gate_kernel(
    student,
    teacher,
    mask,
    context_weight,
    outcome,
    starts,
    lengths,
    teacher_starts,
    coefficient,
    rollout_loss,
    stance_score,
    raw_stance_score,
    stance,
    polarity,
    gated_loss,
    clipped_token_frac,
    context_stride,
    num_contexts,
    gate_temperature,
    log_ratio_clip,
    stance_threshold,
    IMITATE: tl.constexpr,
    CONTEXTS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    rollout = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + rollout)
    length = tl.load(lengths + rollout).to(tl.int32)
    student += start
    mask += start
    teacher += tl.load(teacher_starts + rollout)
    contexts = tl.arange(0, CONTEXTS)
    exists = contexts < num_contexts
    place = rollout * num_contexts + contexts
    weight = tl.load(context_weight + place, mask=exists, other=0.0)
    is_present = weight != 0.0

    clipped_sum = tl.zeros([CONTEXTS], tl.float32)
    raw_sum = tl.zeros([CONTEXTS], tl.float32)
    loss_sum = tl.zeros([CONTEXTS], tl.float32)
    num_clipped = tl.zeros([CONTEXTS], tl.float32)
    num_counted = tl.zeros([TOKENS], tl.float32)
    for first in range(0, length, TOKENS):
        tokens = first + tl.arange(0, TOKENS)
        ratio, every, counts = _log_ratio(student, teacher, mask, tokens, length, contexts, context_stride, is_present)
        clipped_sum += tl.sum(tl.minimum(tl.maximum(ratio, -log_ratio_clip), log_ratio_clip), axis=1)
        raw_sum += tl.sum(ratio, axis=1)
        num_clipped += tl.sum((tl.abs(ratio) > log_ratio_clip).to(tl.float32), axis=1)
        exponent = ratio * ratio / (-2.0 * gate_temperature)
        loss_sum -= tl.sum(tl.where(every, log_one_plus(0.5 * exponential_minus_one(exponent)), 0.0), axis=1)
        num_counted += counts.to(tl.float32)

    num_tokens = tl.maximum(tl.sum(num_counted), 1.0)
    score = clipped_sum / num_tokens
    sign = tl.where(score > 0, 1.0, -1.0)
    side = tl.where(tl.abs(score) > stance_threshold, sign, 0.0)
    if IMITATE:
        verdict = is_present.to(tl.float32)
    else:
        verdict = tl.load(outcome + rollout) * side
    row_loss = loss_sum / num_tokens
    tl.store(stance_score + place, score, mask=exists)
    tl.store(raw_stance_score + place, raw_sum / num_tokens, mask=exists)
    tl.store(stance + place, side, mask=exists)
    tl.store(polarity + place, verdict, mask=exists)
    tl.store(gated_loss + place, row_loss, mask=exists)
    tl.store(clipped_token_frac + place, num_clipped / num_tokens, mask=exists)
    tl.store(rollout_loss + rollout, tl.sum(weight * verdict * row_loss))

    share = weight * verdict / num_tokens
    for first in range(0, length, TOKENS):
        tokens = first + tl.arange(0, TOKENS)
        ratio, every, counts = _log_ratio(student, teacher, mask, tokens, length, contexts, context_stride, is_present)
        opened = exponential(ratio * ratio / (-2.0 * gate_temperature))
        opened = opened / (1.0 + opened)
        slope = tl.where(opened > 0.0, opened * ratio / gate_temperature, 0.0)
        total = -tl.sum(share[:, None] * slope, axis=0)
        tl.store(coefficient + start + tokens, total, mask=tokens < length)


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResults:
    """What the kernel writes; the fields are those of `sgsd_kernels.GatedPolarityOutput`."""

    rollout_loss: Tensor
    """[B]."""
    coefficient: Tensor
    """In the layout of the student's log-probabilities."""
    stance_score: Tensor
    raw_stance_score: Tensor
    stance: Tensor
    polarity: Tensor
    gated_loss: Tensor
    clipped_token_frac: Tensor
    """These six [B, K]."""


def gate(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    context_weight: Tensor,
    outcome: Tensor,
    *,
    starts: Tensor,
    lengths: Tensor,
    teacher_starts: Tensor,
    context_stride: int,
    gate_temperature: float,
    log_ratio_clip: float,
    stance_threshold: float,
    imitate: bool,
) -> GateResults:
    """Rollout b's tokens are entries ``starts[b] : starts[b] + lengths[b]`` of ``student`` and ``mask``.

    Under context k they are the entries of ``teacher`` from ``teacher_starts[b] + k * context_stride`` on. So padded
    and packed layouts are the same to the kernel. ``coefficient`` is written where a rollout has a token and is 0
    elsewhere.
    """
    num_rollouts, num_contexts = context_weight.shape
    coefficient = torch.zeros(student.shape, dtype=torch.float32, device=student.device)
    rollout_loss = torch.empty(num_rollouts, dtype=torch.float32, device=student.device)
    rows = torch.empty(6, num_rollouts, num_contexts, dtype=torch.float32, device=student.device)
    contexts = max(1, triton.next_power_of_2(num_contexts))
    if num_rollouts > 0:
        gate_kernel[(num_rollouts,)](
            student.float().contiguous(),
            teacher.float().contiguous(),
            mask.contiguous().view(torch.uint8),
            context_weight.float().contiguous(),
            outcome.float().contiguous(),
            starts,
            lengths,
            teacher_starts,
            coefficient,
            rollout_loss,
            *rows,
            context_stride,
            num_contexts,
            gate_temperature,
            log_ratio_clip,
            stance_threshold,
            IMITATE=imitate,
            CONTEXTS=contexts,
            TOKENS=token_block(contexts),
            num_warps=NUM_WARPS,
        )
    return GateResults(
        rollout_loss=rollout_loss,
        coefficient=coefficient,
        stance_score=rows[0],
        raw_stance_score=rows[1],
        stance=rows[2],
        polarity=rows[3],
        gated_loss=rows[4],
        clipped_token_frac=rows[5],
    )


def specimens(capability: int) -> Iterator[Specimen]:
    """The kernel for 8 and for 64 contexts; its code does not depend on the device."""
    floats = ["student", "teacher", "context_weight", "outcome", "coefficient", "rollout_loss", "stance_score"]
    floats += ["raw_stance_score", "stance", "polarity", "gated_loss", "clipped_token_frac"]
    for num_contexts in (8, 64):
        yield Specimen(
            name=f"gate/{num_contexts}",
            kernel=gate_kernel,
            signature=dict.fromkeys(floats, "*fp32")
            | dict.fromkeys(["starts", "lengths", "teacher_starts"], "*i64")
            | dict.fromkeys(["gate_temperature", "log_ratio_clip", "stance_threshold"], "fp32")
            | {"mask": "*u8", "context_stride": "i32", "num_contexts": "i32"},
            constexprs={"IMITATE": False, "CONTEXTS": num_contexts, "TOKENS": token_block(num_contexts)},
            num_warps=NUM_WARPS,
            num_stages=3,
        )
