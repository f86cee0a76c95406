"""From a causal LM's last hidden states to its logits, for the supported architectures."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.scoring.precision import product_dtype


def head_arguments(model: PreTrainedModel, hidden: Tensor) -> dict[str, Any]:
    """``hidden``, ``weight``, ``bias``, ``temperature`` and ``softcap`` for the functions of `sgsd_kernels`.

    Under autocast the factors of the head's product are cast as autocast casts them; accumulators stay float32.
    Supports capped logits (Gemma) and scaled ones (Granite, Cohere).

    Raises:
        ValueError: for a head that is no plain linear layer, such as one with an adapter.
    """
    head = model.get_output_embeddings()
    if isinstance(head, BaseTunerLayer) or not isinstance(head, torch.nn.Linear):
        raise ValueError(
            f"the head of {type(model).__name__} is a {type(head).__name__}; log-probabilities are computed from a "
            "plain linear layer, so leave the head out of policy.lora.target_modules"
        )
    dtype = product_dtype(head.weight)
    bias = head.bias
    return {
        "hidden": hidden.to(dtype),
        "weight": head.weight.to(dtype),
        "bias": None if bias is None else bias.to(dtype),
        "temperature": _temperature(model),
        "softcap": getattr(model.config.get_text_config(), "final_logit_softcapping", None),
    }


def _temperature(model: PreTrainedModel) -> float:
    """Return the divisor that the architecture applies to its logits."""
    divisor = getattr(model.config.get_text_config(), "logits_scaling", None)
    factor = getattr(model, "logit_scale", None)
    return float(divisor or 1.0) / float(factor or 1.0)
