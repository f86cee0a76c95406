"""Architectures that cannot be packed: scored and sampled from as each sequence alone, or refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from sgsd_lightning.scoring.architectures import is_packable
from sgsd_lightning.scoring.attention import resolve_attention, row_layout
from sgsd_lightning.scoring.check import check_decoding, check_score
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import TokenSequence

GPT = {"vocab_size": 53, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
LLAMA = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
FALCON = {name: LLAMA[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
RUN: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-J": ("GPTJConfig", {**GPT, "rotary_dim": 4}),
    "CodeGen": ("CodeGenConfig", {**GPT, "rotary_dim": 4}),
    "Falcon": ("FalconConfig", {**FALCON, "initializer_range": 0.3}),
    "Falcon with ALiBi": ("FalconConfig", {**FALCON, "initializer_range": 0.3, "alibi": True}),
    "MPT": ("MptConfig", {"vocab_size": 53, "d_model": 32, "n_layers": 2, "n_heads": 4, "initializer_range": 0.3}),
    "Bloom": (
        "BloomConfig",
        {"vocab_size": 53, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    ),
    "MiniMax": ("MiniMaxConfig", {**LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "block_size": 4}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("MambaConfig", {"vocab_size": 53, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "RWKV": ("RwkvConfig", {"vocab_size": 53, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}),
    "Llama 4": (
        "Llama4TextConfig",
        {**LLAMA, "num_local_experts": 2, "interleave_moe_layer_step": 1, "attention_chunk_size": 4},
    ),
    "BERT": ("BertConfig", {**FALCON, "intermediate_size": 48, "initializer_range": 0.3}),
}


def load(kind: str, settings: dict[str, Any]) -> PreTrainedModel:
    config = getattr(transformers, kind)(**settings)
    torch.manual_seed(0)
    attention = resolve_attention("auto", config, torch.float32)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def check_all(model: PreTrainedModel) -> None:
    check_score(model)
    check_decoding(model)


@pytest.mark.parametrize("name", list(RUN))
@torch.no_grad()
def test_auto_scores_padded_rows_as_each_sequence_alone(name: str) -> None:
    model = load(*RUN[name])
    bind_score(model)
    assert not is_packable(model.config)
    assert row_layout(model.config) == "padded"
    sequences = [TokenSequence.causal(range(2, 2 + n), range(9, 9 + 2 * n)) for n in (1, 9)]
    found = model.score(pack(sequences, "padded"), implementation="reference").logprob.split([2, 18])
    for sequence, logprob in zip(sequences, found, strict=True):
        logits = model(torch.tensor([sequence.input_ids]), use_cache=False).logits[0, list(sequence.predicted_from)]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(sequence.targets)[:, None])[:, 0]
        torch.testing.assert_close(logprob, expected, atol=1e-4, rtol=0)
    check_all(model)


@pytest.mark.parametrize("name", list(REFUSED))
def test_others_are_refused_in_one_sentence(name: str) -> None:
    model = load(*REFUSED[name])
    with pytest.raises(ValueError, match=type(model).__name__) as info:
        check_all(model)
    assert "\n" not in str(info.value)


def test_a_model_that_lets_padding_into_its_state_is_refused() -> None:
    model = load(*RUN["GPT-J"])
    forward = model.forward
    model.forward = lambda *args, attention_mask=None, **kwargs: forward(*args, **kwargs)
    check_score(model)
    with pytest.raises(ValueError, match="GPTJForCausalLM cannot be sampled from: rows of a batch"):
        check_decoding(model)


def test_an_implementation_that_an_architecture_does_not_have_is_refused() -> None:
    config = transformers.BloomConfig(**RUN["Bloom"][1])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sgsd_varlen").eval()
    with pytest.raises(ValueError, match="Bloom"):
        check_score(model)


@pytest.mark.parametrize("kind", ["Qwen3Config", "LlamaConfig", "Gemma3TextConfig", "GPT2Config", "StableLmConfig"])
def test_attention_through_the_interface_is_packed(kind: str) -> None:
    assert is_packable(getattr(transformers, kind)())
