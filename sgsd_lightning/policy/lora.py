"""Low-rank adapters: put into a model in place, switched off by a flag."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, PeftModel, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import PreTrainedModel

from sgsd_lightning.seeding import seeded
from sgsd_lightning.types.arguments import require, require_at_least

ADAPTER_NAME = "default"
_MERGED_ADAPTER = "_sgsd_merged_adapter"


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
        if isinstance(self.target_modules, str):
            raise ValueError(
                f"policy.lora.target_modules must be a list of names, such as [q_proj]; got {self.target_modules!r}"
            )


def inject_lora(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Add adapters in place: the model keeps its class and its names, everything but the adapters is frozen.

    Adapters are float32 whatever the model's dtype, so that small updates are not rounded away.

    Raises:
        ValueError: when no layer of the model is called by one of the names, or one of them is a matrix that two layers
            share.
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
    _check_tied(model, "policy.lora.target_modules: LoRA")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def with_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The model with a saved adapter added to its weights.

    Raises:
        ValueError: for a folder without an adapter, with one of another model, or with one on a matrix that two layers
            share.
    """
    try:
        if Path(folder).is_dir() and not (Path(folder) / "adapter_config.json").is_file():
            raise OSError("it has no adapter_config.json")  # peft would look for it on the hub, and again
        adapted = PeftModel.from_pretrained(model, folder)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"policy.adapter_path {folder!r} is no LoRA adapter of this model ({reason}); give a folder with "
            "adapter_config.json, and its base model as policy.model_name_or_path"
        ) from error
    _check_tied(adapted, f"policy.adapter_path {folder!r}: the adapter")
    if not adapter_layers(adapted):
        raise ValueError(
            f"policy.adapter_path {folder!r} holds no LoRA but {adapted.peft_type}, which cannot be added to weights"
        )
    merged: PreTrainedModel = adapted.merge_and_unload()
    setattr(merged, _MERGED_ADAPTER, folder)
    return merged


def merged_adapter(model: PreTrainedModel) -> str | None:
    """The folder of the adapter that :func:`with_adapter` added to the weights; None where there is none."""
    return getattr(model, _MERGED_ADAPTER, None)


def _check_tied(model: nn.Module, what: str) -> None:
    """Adapters must not lie on a matrix that another layer uses too: added to it, they would change both layers."""
    users = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
            if any(users[id(parameter)] > 1 for parameter in base.parameters()):
                raise ValueError(
                    f"{what} changes {name.removeprefix('base_model.model.')}, whose matrix is also that of another "
                    "layer (tie_word_embeddings), which it would change as well; leave embeddings and head out of it, "
                    "or take a base model with a head of its own"
                )


def adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
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
