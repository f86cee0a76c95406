"""A trained policy as a folder that Hugging Face libraries load."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.policy.lora import ADAPTER_NAME, adapter_layers, merged_adapter


@torch.no_grad()
def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    adapter: Literal["merged", "adapter"] = "merged",
) -> None:
    """Write model and tokenizer; the live model is left as it is.

    Args:
        model: With or without adapters.
        tokenizer: Saved beside it.
        folder: Created if need be.
        adapter: ``merged`` writes full weights for ``AutoModelForCausalLM.from_pretrained``, adapters added to them.
            ``adapter`` writes the adapters alone, for ``PeftModel.from_pretrained`` on the base model.

    Raises:
        ValueError: for ``adapter`` when the model has none, or its base has another adapter added to it and so is no
            model that could be named; for an unknown value.
    """
    if adapter not in ("merged", "adapter"):
        raise ValueError(f"adapter must be merged or adapter; got {adapter!r}")
    if adapter == "adapter" and not adapter_layers(model):
        raise ValueError("adapter: adapter asks for a LoRA adapter, but the policy was trained without; use merged")
    if adapter == "adapter" and (added := merged_adapter(model)) is not None:
        raise ValueError(
            f"adapter: adapter would write an adapter for {model.name_or_path!r}, but the policy was trained on top of "
            f"policy.adapter_path {added!r} added to it; use merged"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if adapter == "adapter":
        _save_adapter(model, folder)
    else:
        model.save_pretrained(folder, state_dict=_merged_state(model))
    tokenizer.save_pretrained(folder)


def _save_adapter(model: PreTrainedModel, folder: Path) -> None:
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME)
    # the names that a PeftModel around the base model would have given them
    tensors = {f"base_model.model.{name}": value.contiguous().cpu() for name, value in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    model.peft_config[ADAPTER_NAME].save_pretrained(folder)


def _merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The base model's state dict with ``base + scaling * B A`` for every adapted weight, added in float32."""
    state = {
        name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            base = module.get_base_layer().weight
            delta = module.get_delta_weight(ADAPTER_NAME)
            state[f"{name}.weight"] = (base.float() + delta.float()).to(base.dtype)
    return state
