"""An adapter that is added to the weights before training: as peft applies it, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from sgsd_lightning.policy import LoraSettings, PretrainedPolicy, export_model
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.policy.lora import inject_lora

IDS = torch.arange(3, 19)[None]
TOKENIZER = byte_tokenizer()


@pytest.fixture
def base(tmp_path: Path) -> Callable[[bool], str]:
    """Writes a base model with head and embedding tied or not; gives its folder."""

    def write(is_tied: bool) -> str:
        torch.manual_seed(0)
        folder = str(tmp_path / f"tied-{is_tied}")
        config = Qwen3Config(
            vocab_size=len(TOKENIZER),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.2,
            tie_word_embeddings=is_tied,
            bos_token_id=None,
            eos_token_id=TOKENIZER.eos_token_id,
            pad_token_id=TOKENIZER.pad_token_id,
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        TOKENIZER.save_pretrained(folder)
        return folder

    return write


def saved_adapter(base: str, folder: Path, **settings: Any) -> Tensor:
    """Writes an adapter that does something; gives the logits that peft makes of it."""
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, **settings})
    model = stirred(get_peft_model(AutoModelForCausalLM.from_pretrained(base), config))
    model.save_pretrained(folder)
    return logits(model)


def stirred(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model.eval()(IDS).logits


@pytest.mark.parametrize(
    ("is_tied", "modules"), [(True, ["q_proj"]), (False, ["q_proj", "lm_head"]), (False, ["q_proj", "embed_tokens"])]
)
def test_it_is_added_as_peft_applies_it(
    is_tied: bool, modules: list[str], base: Callable[[bool], str], tmp_path: Path
) -> None:
    folder = base(is_tied)
    expected = saved_adapter(folder, tmp_path / "a", target_modules=modules)
    found = logits(PretrainedPolicy(folder, adapter_path=str(tmp_path / "a")).load_model())
    assert (expected - logits(AutoModelForCausalLM.from_pretrained(folder))).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_an_adapter_on_a_matrix_that_two_layers_share_is_refused(
    settings: dict[str, Any], base: Callable[[bool], str], tmp_path: Path
) -> None:
    folder = base(True)
    saved_adapter(folder, tmp_path / "a", **settings)
    with pytest.raises(
        ValueError, match=r"the adapter changes \S+, whose matrix is also that of another layer"
    ) as info:
        PretrainedPolicy(folder, adapter_path=str(tmp_path / "a")).load_model()
    assert "\n" not in str(info.value)
    assert "policy.adapter_path" in str(info.value)


def test_lora_of_our_own_on_a_shared_matrix_is_refused(base: Callable[[bool], str]) -> None:
    settings = LoraSettings(rank=2, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ValueError, match=r"policy.lora.target_modules: LoRA changes model.embed_tokens"):
        inject_lora(AutoModelForCausalLM.from_pretrained(base(True)), settings)
    inject_lora(AutoModelForCausalLM.from_pretrained(base(False)), settings)


def test_other_kinds_of_adapters_are_refused(base: Callable[[bool], str], tmp_path: Path) -> None:
    folder = base(False)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path / "a")
    with pytest.raises(ValueError, match="holds no LoRA but"):
        PretrainedPolicy(folder, adapter_path=str(tmp_path / "a")).load_model()


def test_an_adapter_on_top_of_another_is_exported_merged_alone(base: Callable[[bool], str], tmp_path: Path) -> None:
    folder = base(False)
    saved_adapter(folder, tmp_path / "a", target_modules=["q_proj"])
    policy = stirred(PretrainedPolicy(folder, adapter_path=str(tmp_path / "a"), lora=LoraSettings(rank=2)).load_model())
    with pytest.raises(ValueError, match=r"on top of policy.adapter_path .* added to it; use merged"):
        export_model(policy, TOKENIZER, tmp_path / "out", adapter="adapter")
    assert not (tmp_path / "out").exists()
    export_model(policy, TOKENIZER, tmp_path / "out")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(policy), atol=1e-4, rtol=0
    )
