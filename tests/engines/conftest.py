"""A tiny policy whose tokens are spread out, and requests for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config

from sgsd_lightning.engines import GenerationRequest
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return byte_tokenizer()


@pytest.fixture
def make_model(tokenizer: PreTrainedTokenizerBase) -> Callable[..., PreTrainedModel]:
    """Builds a tiny Qwen3 whose end-of-sequence token is likely enough to be sampled."""

    def make(attention: str = "sgsd_varlen", end_bias: float = 0.0) -> PreTrainedModel:
        torch.manual_seed(0)
        config = Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=64,
            initializer_range=0.2,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        if end_bias:
            model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
            with torch.no_grad():
                model.lm_head.bias[tokenizer.eos_token_id] = end_bias
        return model

    return make


@pytest.fixture
def make_request(tokenizer: PreTrainedTokenizerBase) -> Callable[..., GenerationRequest]:
    """Builds a request with a prompt of random bytes: ``make_request(length, seed)``."""

    def make(num_prompt: int, seed: int) -> GenerationRequest:
        generator = torch.Generator().manual_seed(1000 * num_prompt + seed)
        ids = torch.randint(0, 256, (num_prompt,), generator=generator).tolist()
        return GenerationRequest(
            prompt_ids=tuple(ids), seed=seed, stop_ids=(tokenizer.eos_token_id,), label=f"request {seed}"
        )

    return make
