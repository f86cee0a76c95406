"""Sizes against real models and published totals."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig

from sgsd_lightning.planning.model_shape import config_by_name, model_shape, qwen3_config, shape_from_config
from tests.planning.sized_runs import LORA, small_policy

# parameters as the Keras hub's presets state them, converted from the released weights
PUBLISHED = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_sizes_give_the_published_totals(name: str) -> None:
    config = qwen3_config(name)
    assert config is not None
    assert shape_from_config(config).num_parameters == PUBLISHED[name]


def test_the_smaller_one_whose_total_is_published_rounded() -> None:
    config = qwen3_config("Qwen/Qwen3-1.7B")
    assert config is not None
    assert round(shape_from_config(config).num_parameters / 1e9, 2) == 1.72


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_parameters_of_a_real_model(lora: object, tied: bool) -> None:
    model = small_policy(lora=lora, tie_word_embeddings=tied).load_model()
    shape = model_shape(model)
    assert shape.num_parameters + shape.num_adapter_parameters == sum(p.numel() for p in model.parameters())
    assert shape.num_adapter_parameters == (
        sum(p.numel() for p in model.parameters() if p.requires_grad) if lora else 0
    )
    assert shape.num_head_weights == model.get_output_embeddings().weight.numel()


def test_configuration_and_model_agree() -> None:
    model = small_policy(lora=LORA).load_model()
    from_config = shape_from_config(model.config).with_adapters(LORA.rank, LORA.target_modules)
    assert from_config == model_shape(model)


def test_another_architecture() -> None:
    config = LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96
    )
    shape = shape_from_config(config)
    assert shape.num_parameters == sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    assert not shape.has_query_key_norm


def test_a_shape_needs_no_memory() -> None:
    config = qwen3_config("Qwen/Qwen3-32B")
    assert config is not None
    before = torch.get_default_dtype(), torch.get_default_device()
    shape_from_config(config)
    assert (torch.get_default_dtype(), torch.get_default_device()) == before


def test_a_local_folder_is_read(tmp_path: object) -> None:
    model = small_policy().load_model()
    model.config.save_pretrained(tmp_path)
    assert shape_from_config(config_by_name(str(tmp_path))) == model_shape(model)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="no dense decoder"):
        shape_from_config(MixtralConfig(num_hidden_layers=1))
    with pytest.raises(ValueError, match="name no matrix; there are q_proj, "):
        model_shape(small_policy().load_model()).with_adapters(8, ["query"])
    assert qwen3_config("Qwen/Qwen3-Embedding-0.6B") is None
    assert qwen3_config("Qwen/Qwen3-30B-A3B") is None
