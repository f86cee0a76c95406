"""The training step as the SGSD authors' code takes it, in our words: what ours is measured against.

For every rollout the student is run once per teacher, with gradient; teachers and students are padded, prompts on the
left to the longest and completions on the right to the most that may be sampled; the head is applied at every position;
log-softmax is taken of whole rows of logits in the model's dtype. Positions are counted without padding, which theirs
are not, so that the answer is the same as ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.step_cases import StepInputs, StepSize
from sgsd_lightning.objectives import GatedPolarity


def authors_step(model: PreTrainedModel, inputs: StepInputs, size: StepSize, objective: GatedPolarity) -> float:
    """Forward and backward, one rollout at a time with its gradient added up; the loss."""
    total = 0.0
    for prompt_ids, completion_ids, prompts, weights, outcome in zip(
        inputs.prompt_ids,
        inputs.completion_ids,
        inputs.teacher_prompts,
        inputs.context_weights,
        inputs.outcomes,
        strict=True,
    ):
        with torch.no_grad():
            teacher = _padded_logprob(model, prompts, completion_ids, size.completion_tokens)
        student_prompts = [prompt_ids] * len(prompts)
        student = _padded_logprob(model, student_prompts, completion_ids, size.completion_tokens)
        loss = _loss(student.float(), teacher.float(), len(completion_ids), weights, outcome, objective)
        loss = loss / len(inputs.rows)
        loss.backward()
        total += loss.item()
    return total


def padded_tokens(inputs: StepInputs, size: StepSize) -> tuple[int, int]:
    """Tokens that go through the model in one step, and how many of them are padding."""
    num_run = num_real = 0
    for prompt_ids, completion_ids, prompts in zip(
        inputs.prompt_ids, inputs.completion_ids, inputs.teacher_prompts, strict=True
    ):
        for row_prompts in (prompts, [prompt_ids] * len(prompts)):
            width = max(map(len, row_prompts)) + size.completion_tokens
            num_run += len(row_prompts) * width
            num_real += sum(len(prompt) + len(completion_ids) for prompt in row_prompts)
    return num_run, num_run - num_real


def _padded_logprob(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], completion: tuple[int, ...], max_tokens: int
) -> Tensor:
    """[K, max_tokens]: log-probability of the padded completion under each prompt."""
    device, width = model.device, max(map(len, prompts))
    padding = [0] * (max_tokens - len(completion))
    rows = [[0] * (width - len(prompt)) + [*prompt, *completion] + padding for prompt in prompts]
    ids = torch.tensor(rows, device=device)
    mask = torch.ones_like(ids)
    for row, prompt in enumerate(prompts):
        mask[row, : width - len(prompt)] = 0
    mask[:, width + len(completion) :] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    logprob = logits[:, width - 1 : -1].log_softmax(-1)
    return logprob.gather(-1, ids[:, width:, None])[..., 0]


def _loss(
    student: Tensor,
    teacher: Tensor,
    num_tokens: int,
    weights: Sequence[float],
    outcome: int,
    objective: GatedPolarity,
) -> Tensor:
    """Every teacher's loss against its own copy of the student, weighted."""
    settings = objective.gate
    mask = torch.arange(student.shape[1], device=student.device) < num_tokens
    log_ratio = torch.where(mask, teacher - student, 0.0)  # [K, T]
    clipped = log_ratio.detach().clamp(-settings.log_ratio_clip, settings.log_ratio_clip)
    score = clipped.sum(-1) / num_tokens
    polarity = outcome * torch.where(score.abs() > settings.stance_threshold, score.sign(), 0.0)
    gated = math.log(2) - torch.log1p(torch.exp(log_ratio.square() / (-2 * settings.gate_temperature)))
    return (torch.tensor(weights, device=student.device) * polarity * gated.sum(-1) / num_tokens).sum()
