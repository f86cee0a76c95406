"""Adapters: what is trained, and switching them off by a flag."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy import LoraSettings
from sgsd_lightning.policy.lora import adapter_layers, adapters_disabled, inject_lora

MakeModel = Callable[..., PreTrainedModel]
IDS = torch.tensor([[5, 6, 7, 8]])


def _perturb_adapters(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_adapters_alone_are_trained_and_start_out_as_nothing(make_model: MakeModel) -> None:
    model = make_model()
    before = _logits(model)
    inject_lora(model, LoraSettings(rank=2, alpha=4))
    assert torch.equal(_logits(model), before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    # two matrices for each of seven layers in each of two blocks
    assert len(trained) == 28
    assert type(model).__name__ == "Qwen3ForCausalLM"


def test_adapters_are_float32_in_a_bfloat16_model(make_model: MakeModel) -> None:
    model = make_model().bfloat16()
    inject_lora(model, LoraSettings(rank=2))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert _logits(model).dtype == torch.bfloat16


def test_initial_adapters_come_from_their_seed_alone(make_model: MakeModel) -> None:
    def adapters(seed: int, noise: int) -> list[Tensor]:
        model = make_model()
        torch.manual_seed(noise)
        inject_lora(model, LoraSettings(rank=2, seed=seed))
        return [parameter for name, parameter in model.named_parameters() if "lora_A" in name]

    assert all(map(torch.equal, adapters(0, 1), adapters(0, 2)))
    assert not any(map(torch.equal, adapters(0, 1), adapters(1, 1)))


def test_disabled_adapters_leave_the_base_model_and_every_flag_as_it_was(make_model: MakeModel) -> None:
    model = make_model()
    base = _logits(model)
    inject_lora(model, LoraSettings(rank=2, alpha=4))
    _perturb_adapters(model)
    adapted = _logits(model)
    with adapters_disabled(model):
        assert torch.equal(_logits(model), base)
        assert any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(_logits(model), adapted)
    assert (adapted - base).abs().max() > 0.1


def test_adapters_come_back_after_an_error(make_model: MakeModel) -> None:
    model = make_model()
    inject_lora(model, LoraSettings(rank=2))
    with pytest.raises(KeyError), adapters_disabled(model):
        raise KeyError
    assert not any(layer.disable_adapters for layer in adapter_layers(model))


def test_layers_that_do_not_exist_are_refused(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match=r"policy\.lora\.target_modules \['c_attn'\] do not fit Qwen3ForCausalLM"):
        inject_lora(make_model(), LoraSettings(target_modules=["c_attn"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"alpha": 0}, "alpha must be above 0"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": ["q_proj", "lm_head"]}, "must not name lm_head"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraSettings(**settings)  # type: ignore[arg-type]
