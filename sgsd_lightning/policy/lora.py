"""Low-rank adapters: put into a model in place, switched off by a flag."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, PeftModel, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from sgsd_lightning.seeding import seeded
from sgsd_lightning.types.arguments import require, require_at_least

ADAPTER_NAME = "default"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """LoRA settings as in peft, without dropout, which would add noise to the log-ratios."""

    rank: int = 64
    alpha: float = 128
    """The update is scaled by ``alpha / rank``."""
    target_modules: Sequence[str] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers to adapt. The head cannot be among them."""
    seed: int = 0
    """Determines the adapters' initial values; the adapted model starts out equal to the plain one."""

    def __post_init__(self) -> None:
        require_at_least(1, "policy.lora.rank", self.rank)
        require(0 < self.alpha < math.inf, "policy.lora.alpha", "be above 0 and finite", self.alpha)
        if not self.target_modules:
            raise ValueError("policy.lora.target_modules is empty; name at least one linear layer, such as q_proj")
        if "lm_head" in self.target_modules:
            raise ValueError("policy.lora.target_modules must not name lm_head: the head is read as a plain matrix")


def inject_lora(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Add adapters in place: the model keeps its class and its names, everything but the adapters is frozen.

    Adapters are float32 whatever the model's dtype, so that small updates are not rounded away.

    Raises:
        ValueError: when no layer of the model is called by one of the names.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.name_or_path or None,
    )
    with seeded(settings.seed):
        try:
            inject_adapter_in_model(config, model, ADAPTER_NAME)
        except ValueError as error:
            raise ValueError(
                f"policy.lora.target_modules {list(settings.target_modules)} do not fit {type(model).__name__}: {error}"
            ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def with_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The model with a saved adapter added to its weights.

    Raises:
        ValueError: for a folder without an adapter, or with one of another model.
    """
    try:
        if Path(folder).is_dir() and not (Path(folder) / "adapter_config.json").is_file():
            raise OSError("it has no adapter_config.json")  # peft would look for it on the hub, and again
        merged: PreTrainedModel = PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"policy.adapter_path {folder!r} is no LoRA adapter of this model ({reason}); give a folder with "
            "adapter_config.json, and its base model as policy.model_name_or_path"
        ) from error
    return merged


def adapter_layers(model: PreTrainedModel) -> list[BaseTunerLayer]:
    """The adapted layers; empty for a model without adapters."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def adapters_disabled(model: PreTrainedModel) -> Iterator[None]:
    """Within this, the model is its frozen base.

    By flag only: peft's own switch also clears ``requires_grad``, which under FSDP fixes the wrong dtype for the
    adapters' gradients.
    """
    layers = adapter_layers(model)
    before = [layer._disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, was_disabled in zip(layers, before, strict=True):
            layer._disable_adapters = was_disabled
