"""How long sequences may become where position embeddings depend on the longest one of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MptConfig, Phi3Config, PreTrainedConfig

from sgsd_lightning.engines import GenerationRequest, TransformersEngine, position_limit
from sgsd_lightning.engines.positions import rotary_limit
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import SamplingSettings, TokenSequence

SIZES = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 8.0]}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 16, "factor": 8.0, **FACTORS}


def llama(**rope: Any) -> PreTrainedConfig:
    return LlamaConfig(**SIZES, **({"rope_scaling": rope} if rope else {}))


@pytest.mark.parametrize(
    ("config", "limit", "is_rotary"),
    [
        (llama(), 128, False),
        (llama(rope_type="linear", factor=4.0), 128, False),
        (llama(rope_type="dynamic", factor=4.0), 128, True),
        (llama(**LONGROPE), 16, True),
        (
            Phi3Config(**SIZES, original_max_position_embeddings=32, rope_scaling={"type": "longrope", **FACTORS}),
            32,
            True,
        ),
        (GPT2Config(n_positions=64), 64, False),
        (MptConfig(), None, False),
    ],
)
def test_the_limit_is_where_a_model_begins_to_read_otherwise(
    config: PreTrainedConfig, limit: int | None, is_rotary: bool
) -> None:
    found = position_limit(config)
    assert (None if found is None else found.num) == limit
    assert (rotary_limit(config) is not None) is is_rotary


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama(**LONGROPE), attn_implementation="sgsd_varlen").eval()
    bind_score(model)
    return model


SHORT, LONG = TokenSequence.causal((1, 2, 3), (4, 5, 6, 7)), TokenSequence.causal(range(2, 12), range(20, 27))


@torch.no_grad()
def test_sequences_within_the_limit_do_not_depend_on_their_neighbours(model: Any) -> None:
    alone = model.score(pack([SHORT]), implementation="reference").logprob
    beside = model.score(pack([SHORT, LONG]), implementation="reference").logprob[: len(alone)]
    torch.testing.assert_close(beside, alone)


@torch.no_grad()
def test_longer_ones_are_neither_scored_nor_sampled(model: Any) -> None:
    longer = TokenSequence.causal(range(2, 12), range(20, 28))
    with pytest.raises(ValueError, match=r"a sequence to score has 17 tokens, beyond the 16 positions") as scored:
        model.score(pack([SHORT, longer]), implementation="reference")
    request = GenerationRequest(prompt_ids=(1,) * 10, seed=0, label="problem 'a'")
    with pytest.raises(
        ValueError, match=r"prompt of problem 'a' \(10 tokens\) and sampling.max_new_tokens = 7 exceed the 16 positions"
    ) as sampled:
        TransformersEngine().generate(model, [request], SamplingSettings(max_new_tokens=7))
    assert "\n" not in str(scored.value) + str(sampled.value)
    (fits,) = TransformersEngine().generate(model, [request], SamplingSettings(max_new_tokens=6))
    assert len(fits.ids) <= 6
