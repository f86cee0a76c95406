"""Fixtures: tiny models of several architectures, random tokens, and the definition of a score to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.scoring import LossMaskRule
from sgsd_lightning.types import FinishReason, Problem, Rollout, ScoreRow
from tests.support.tiny import tiny_rollout, tiny_row

VOCAB_SIZE = 53
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    # large weights: logits that differ between tokens by more than rounding
    "initializer_range": 0.3,
}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen3 tied": lambda: Qwen3Config(**SIZES, tie_word_embeddings=True),
    "qwen3 untied": lambda: Qwen3Config(**SIZES, tie_word_embeddings=False),
    "llama": lambda: LlamaConfig(**SIZES),
    "granite": lambda: GraniteConfig(**SIZES, logits_scaling=3.0, residual_multiplier=0.5),
    "cohere": lambda: CohereConfig(**SIZES, logit_scale=0.25),
    "gemma2": lambda: Gemma2Config(**SIZES, final_logit_softcapping=2.0, attn_logit_softcapping=None, sliding_window=4),
    "gemma2 capped attention": lambda: Gemma2Config(**SIZES, final_logit_softcapping=2.0, sliding_window=4),
}


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    """Builds a tiny model with random weights: ``make_model("qwen3 tied", attention="sdpa", seed=1)``."""

    def make(name: str = "qwen3 tied", attention: str = "sgsd_varlen", seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention, dtype=torch.float32)

    return make


@pytest.fixture
def make_rollout() -> Callable[..., Rollout]:
    """Builds a rollout of random tokens: ``make_rollout(prompt_length, completion_length, seed)``."""

    def make(num_prompt: int, num_completion: int, seed: int = 0) -> Rollout:
        return tiny_rollout(
            Problem(problem_id=str(seed), text="", answer="1"),
            random_ids(num_prompt, seed),
            random_ids(num_completion, seed + 1000),
            finish_reason=FinishReason.TRUNCATED,
        )

    return make


@pytest.fixture
def make_ids() -> Callable[[int, int], tuple[int, ...]]:
    """Random token ids: ``make_ids(length, seed)``."""
    return random_ids


def random_ids(length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, VOCAB_SIZE, (length,), generator=generator).tolist())


def rows_of(
    rollouts: Sequence[Rollout], prompts: Sequence[Sequence[Sequence[int]]], weights: Sequence[Sequence[float]]
) -> list[ScoreRow]:
    """Rollouts of one turn and the prompts of each one's teachers, as the scorer reads them; a group each."""
    rule = LossMaskRule(byte_tokenizer(), train_eos=True)
    return [
        tiny_row(
            rollout.prompt_ids,
            rollout.completion_ids,
            of_rollout,
            context_weight,
            group=index,
            loss_mask=rule(rollout.turns[0].completion),
            sampled_logprob=rollout.logprobs,
        )
        for index, (rollout, of_rollout, context_weight) in enumerate(zip(rollouts, prompts, weights, strict=True))
    ]


@pytest.fixture
def own_distributions() -> Callable[[PreTrainedModel, Sequence[int], Sequence[int]], Tensor]:
    """[T, V] float64 log-probabilities of the model itself, one sequence at a time, without packing or padding."""

    def distributions(model: PreTrainedModel, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Tensor:
        ids = torch.tensor([[*prompt_ids, *completion_ids]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
        return logits.double().log_softmax(-1)

    return distributions


@pytest.fixture
def own_logprob(
    own_distributions: Callable[..., Tensor],
) -> Callable[[PreTrainedModel, Sequence[int], Sequence[int]], Tensor]:
    """[T] float64: the model's own log-probability of each completion token; carries a gradient."""

    def logprob(model: PreTrainedModel, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Tensor:
        rows = own_distributions(model, prompt_ids, completion_ids)
        return rows.gather(-1, torch.tensor(completion_ids, dtype=torch.int64)[:, None])[:, 0]

    return logprob
