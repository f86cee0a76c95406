"""What kind of attention an architecture has, as far as it decides how sequences can be laid out for it."""

from __future__ import annotations

import sys
from typing import Literal

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

_PACKABLE_LAYERS = {"full_attention", "sliding_attention"}


def is_packable(config: PreTrainedConfig) -> bool:
    """Whether sequences of one row can be kept apart: attention alone, called through transformers' interface.

    Not so for layers that carry a state from token to token (linear attention, state spaces, convolutions), for
    attention in chunks, and for attention written out in the model, which is where ALiBi biases are.
    """
    return has_packable_layers(config) and has_attention_interface(config)


def has_packable_layers(config: PreTrainedConfig) -> bool:
    """Whether a configuration names no other layers than attention over the tokens before, all or a window of them."""
    return set(getattr(config.get_text_config(), "layer_types", None) or ()) <= _PACKABLE_LAYERS


def has_attention_interface(config: PreTrainedConfig) -> bool:
    """Whether the model calls an attention function by name; taken to be so for code outside transformers."""
    model = _model_class(config)
    return (
        model is None
        or model._supports_attention_backend
        # some architectures use the interface without setting `_supports_attention_backend`
        or hasattr(sys.modules[model.__module__], "ALL_ATTENTION_FUNCTIONS")
    )


def own_attention(config: PreTrainedConfig) -> Literal["sdpa", "eager"]:
    """The faster of a model's own implementations, for padded rows."""
    model = _model_class(config)
    return "sdpa" if model is None or model._supports_sdpa else "eager"


def _model_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    for part in (config, config.get_text_config()):
        if type(part) in MODEL_FOR_CAUSAL_LM_MAPPING:
            model: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(part)]
            return model
    return None
