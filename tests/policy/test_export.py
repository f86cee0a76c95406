"""An exported policy gives the logits of the live one, loaded as any Hugging Face user would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sgsd_lightning.policy import LoraSettings, export_model
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.policy.lora import inject_lora

MakeModel = Callable[..., PreTrainedModel]
IDS = torch.tensor([[5, 6, 7, 8]])


def _logits(model: PreTrainedModel | PeftModel) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def _adapted(model: PreTrainedModel) -> PreTrainedModel:
    inject_lora(model, LoraSettings(rank=2, alpha=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", ["qwen3 tied", "qwen3 untied", "gemma2"])
@pytest.mark.parametrize("has_adapters", [False, True])
def test_full_weights_round_trip(name: str, has_adapters: bool, make_model: MakeModel, tmp_path: Path) -> None:
    model = _adapted(make_model(name)) if has_adapters else make_model(name)
    before = _logits(model)
    names = list(model.state_dict())
    export_model(model, byte_tokenizer(), tmp_path / "new" / "folder")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "folder")
    torch.testing.assert_close(_logits(loaded), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(_logits(model), before)
    assert list(model.state_dict()) == names
    assert loaded.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert AutoTokenizer.from_pretrained(tmp_path / "new" / "folder").chat_template is not None


@pytest.mark.parametrize("name", ["qwen3 tied", "qwen3 untied"])
def test_an_adapter_round_trips_on_its_base_model(name: str, make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model(name)
    model = _adapted(make_model(name))
    export_model(model, byte_tokenizer(), tmp_path, adapter="adapter")
    assert not (tmp_path / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(_logits(loaded), _logits(model), atol=1e-6, rtol=0)


def test_merging_keeps_the_dtype_of_the_base(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model().bfloat16()
    inject_lora(model, LoraSettings(rank=2))
    export_model(model, byte_tokenizer(), tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16


def test_training_goes_on_after_an_export(make_model: MakeModel, tmp_path: Path) -> None:
    model = _adapted(make_model()).train()
    export_model(model, byte_tokenizer(), tmp_path)
    assert model.training
    model(input_ids=IDS).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_an_adapter_that_is_not_there_cannot_be_exported(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the policy was trained without; use merged"):
        export_model(make_model(), byte_tokenizer(), tmp_path, adapter="adapter")


def test_an_unknown_kind_of_export_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adapter must be merged or adapter; got 'half'"):
        export_model(make_model(), byte_tokenizer(), tmp_path, adapter="half")  # type: ignore[arg-type]
