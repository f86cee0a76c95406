"""Sizes of a training step, and the rollouts and teacher prompts to score: random tokens of given lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from sgsd_lightning.planning.model_shape import qwen3_config
from sgsd_lightning.policy import LoraSettings
from sgsd_lightning.policy.loading import checkpoint_activations
from sgsd_lightning.policy.lora import inject_lora
from sgsd_lightning.scoring import resolve_attention
from sgsd_lightning.types import ScoreRow, TokenSequence

SHORTEST_FRAC = 0.25
"""The shortest completion, of the longest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSize:
    """One micro-batch of training."""

    num_rollouts: int
    num_contexts: int
    student_prompt_tokens: int
    teacher_prompt_tokens: int
    completion_tokens: int
    """The most; completions are between a quarter of it and all of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInputs:
    """What both schemes are given."""

    rows: Sequence[ScoreRow]
    """As the training step's scorer reads them."""
    prompt_ids: Sequence[tuple[int, ...]]
    """Of the student."""
    completion_ids: Sequence[tuple[int, ...]]
    teacher_prompts: Sequence[Sequence[tuple[int, ...]]]
    context_weights: Sequence[Sequence[float]]
    outcomes: Sequence[int]


def make_inputs(size: StepSize, vocab_size: int) -> StepInputs:
    """The same for the same size. The first completion is the longest."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, vocab_size, (length,), generator=generator).tolist())

    def about(length: int) -> int:
        return length - int(torch.randint(0, 1 + length // 8, (1,), generator=generator))

    shortest = max(1, int(SHORTEST_FRAC * size.completion_tokens))
    lengths = torch.linspace(size.completion_tokens, shortest, size.num_rollouts).int().tolist()
    prompt_ids, completion_ids = [], []
    for length in lengths:
        prompt_ids.append(ids(about(size.student_prompt_tokens)))
        completion_ids.append(ids(length))
    teacher_prompts = [
        [ids(about(size.teacher_prompt_tokens)) for _ in range(size.num_contexts)] for _ in range(size.num_rollouts)
    ]
    return StepInputs(
        rows=[
            _row(*parts) for parts in zip(range(len(lengths)), prompt_ids, completion_ids, teacher_prompts, strict=True)
        ],
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        teacher_prompts=teacher_prompts,
        context_weights=[[1 / size.num_contexts] * size.num_contexts] * size.num_rollouts,
        outcomes=[1 if index % 2 == 0 else -1 for index in range(size.num_rollouts)],
    )


def _row(
    index: int,
    prompt_ids: tuple[int, ...],
    completion_ids: tuple[int, ...],
    teacher_prompts: Sequence[tuple[int, ...]],
) -> ScoreRow:
    num_tokens = len(completion_ids)
    return ScoreRow(
        student=(TokenSequence.causal(prompt_ids, completion_ids),),
        teachers=tuple((TokenSequence.causal(prompt, completion_ids),) for prompt in teacher_prompts),
        context_weight=(1 / len(teacher_prompts),) * len(teacher_prompts),
        group=index,
        loss_mask=torch.ones(num_tokens, dtype=torch.bool),
        sampled_logprob=torch.zeros(num_tokens),
        step_index=torch.zeros(num_tokens, dtype=torch.int64),
    )


def small_model() -> PreTrainedModel:
    """A Qwen3 for a CPU: 2 layers of width 256, a vocabulary of 8,192; float32, all weights trained."""
    config = Qwen3Config(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        # weights under which teachers disagree by more than the stance's threshold
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    return _from_config(config, torch.float32).train()


def qwen3_model(name: str, device: torch.device) -> PreTrainedModel:
    """Random bfloat16 weights in the shape of a Qwen3, with the paper's adapters and gradient checkpointing."""
    config = qwen3_config(name)
    if config is None:
        raise ValueError(f"--models {name}: not one of the Qwen3 shapes that are known, such as Qwen/Qwen3-1.7B")
    torch.manual_seed(0)
    with device:
        model = _from_config(config, torch.bfloat16)
    inject_lora(model, LoraSettings())
    checkpoint_activations(model)
    return model.train()


def _from_config(config: Qwen3Config, dtype: torch.dtype) -> PreTrainedModel:
    attention = resolve_attention("auto", config, dtype)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
