"""The sizes of a dense decoder that arithmetic needs, from a model, from its configuration, or from its name."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen3Config

from sgsd_lightning.policy.gguf import converted_folder, is_gguf

_QWEN3 = {
    "0.6B": (1024, 28, 16, 3072, True),
    "1.7B": (2048, 28, 16, 6144, True),
    "4B": (2560, 36, 32, 9728, True),
    "8B": (4096, 36, 32, 12288, False),
    "14B": (5120, 40, 40, 17408, False),
    "32B": (5120, 64, 64, 25600, False),
}
"""Width, layers, heads, width of the MLP, whether head and embedding are tied; all have 8 key-value heads of 128."""
_QWEN3_NAME = re.compile(r"(?:Qwen/)?Qwen3-([\d.]+B)(?:-Base|-Instruct-2507|-Thinking-2507)?")
_INPUT_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "qkv_proj")
_MOE_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearLayer:
    """One matrix of a decoder layer."""

    name: str
    """Within the decoder layer, as ``self_attn.q_proj``."""
    in_features: int
    out_features: int
    adapter_rank: int = 0
    """Of a LoRA adapter; 0 without one."""

    @property
    def num_weights(self) -> int:
        """Entries of the matrix."""
        return self.in_features * self.out_features

    @property
    def num_adapter_weights(self) -> int:
        """Entries of the adapter's two matrices."""
        return self.adapter_rank * (self.in_features + self.out_features)

    @property
    def reads_layer_input(self) -> bool:
        """Whether what it multiplies is the (normalised) input of its decoder layer."""
        return self.name.endswith(_INPUT_PROJECTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A decoder whose layers are all alike: grouped-query attention and a gated MLP, as in Llama and Qwen3."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    num_layer_parameters: int
    """Of one decoder layer, without adapters."""
    num_root_parameters: int
    """Embedding, final norm and head; a tied head counts once."""
    linear_layers: tuple[LinearLayer, ...]
    """Of one decoder layer."""
    has_query_key_norm: bool = False
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    num_sliding_layers: int = 0
    """Layers in which a token sees no further than ``sliding_window``."""

    @property
    def num_parameters(self) -> int:
        """Without adapters."""
        return self.num_layers * self.num_layer_parameters + self.num_root_parameters

    @property
    def num_adapter_parameters(self) -> int:
        """Of all layers."""
        return self.num_layers * sum(layer.num_adapter_weights for layer in self.linear_layers)

    @property
    def has_adapters(self) -> bool:
        """Whether some layer is adapted, so that nothing but the adapters is trained."""
        return self.num_adapter_parameters > 0

    @property
    def num_linear_weights(self) -> int:
        """Entries of the matrices of all decoder layers, without adapters and head."""
        return self.num_layers * sum(layer.num_weights for layer in self.linear_layers)

    @property
    def num_head_weights(self) -> int:
        """Entries of the head."""
        return self.vocab_size * self.hidden_size

    def with_adapters(self, rank: int, target_modules: Sequence[str]) -> ModelShape:
        """The same decoder with LoRA adapters.

        Raises:
            ValueError: when no matrix is called by one of the names.
        """
        adapted = tuple(
            replace(layer, adapter_rank=rank if layer.name.rpartition(".")[2] in target_modules else 0)
            for layer in self.linear_layers
        )
        if not any(layer.adapter_rank for layer in adapted):
            names = ", ".join(layer.name.rpartition(".")[2] for layer in self.linear_layers)
            raise ValueError(f"policy.lora.target_modules {list(target_modules)} name no matrix; there are {names}")
        return replace(self, linear_layers=adapted)


def model_shape(model: PreTrainedModel) -> ModelShape:
    """The shape of a model, wherever it is and whether or not it is sharded or adapted.

    Raises:
        ValueError: for an architecture that is no dense decoder.
    """
    config = model.config.get_text_config()
    _check_dense(config)
    layers = model.get_decoder().layers
    num_all = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    num_layer = [_num_parameters(layer) for layer in layers]
    if len(set(num_layer)) != 1:
        raise ValueError(
            f"the layers of {type(model).__name__} differ in size; only decoders of equal layers are counted"
        )
    layer_types = list(getattr(config, "layer_types", None) or ())
    return ModelShape(
        vocab_size=model.get_output_embeddings().weight.shape[0],
        hidden_size=config.hidden_size,
        num_layers=len(layers),
        num_heads=config.num_attention_heads,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        num_layer_parameters=num_layer[0],
        num_root_parameters=num_all - sum(num_layer),
        linear_layers=_linear_layers(layers[0]),
        has_query_key_norm=any(name.endswith("q_norm") for name, _ in layers[0].named_modules()),
        tie_word_embeddings=bool(config.tie_word_embeddings),
        sliding_window=getattr(config, "sliding_window", None),
        num_sliding_layers=layer_types[: len(layers)].count("sliding_attention"),
    )


def shape_from_config(config: PreTrainedConfig) -> ModelShape:
    """The shape of the model that a configuration describes, from one layer of it without memory (the meta device).

    Raises:
        ValueError: for an architecture that is no dense decoder, or is no causal language model.
    """
    text = config.get_text_config()
    _check_dense(text)
    small = copy.deepcopy(text)
    small.num_hidden_layers = 1
    layer_types = list(getattr(text, "layer_types", None) or ())
    if layer_types:
        small.layer_types = layer_types[:1]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(small)
    return replace(
        model_shape(model),
        num_layers=text.num_hidden_layers,
        num_sliding_layers=layer_types.count("sliding_attention"),
    )


def config_by_name(name_or_path: str) -> PreTrainedConfig:
    """A model's configuration: of a local folder or file, from the cache, from a table of Qwen3, or else from the hub.

    Raises:
        ValueError: when none was found.
        FileNotFoundError, ImportError: for a GGUF file, as :func:`converted_folder`.
    """
    if is_gguf(name_or_path):
        name_or_path = str(converted_folder(name_or_path))
    try:
        return AutoConfig.from_pretrained(name_or_path, local_files_only=True)
    except (OSError, ValueError):
        pass
    known = qwen3_config(name_or_path)
    if known is not None:
        return known
    try:
        return AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the model {name_or_path!r} is no local folder with a config.json, not in the Hugging Face cache or on "
            f"the hub ({str(error).splitlines()[0]}), and none of Qwen3-{', '.join(_QWEN3)}, whose sizes are known here"
        ) from error


def qwen3_config(name: str) -> Qwen3Config | None:
    """The sizes of a dense Qwen3 by its name, such as ``Qwen/Qwen3-8B``; None for any other."""
    match = _QWEN3_NAME.fullmatch(name)
    if match is None or match[1] not in _QWEN3:
        return None
    hidden_size, num_layers, num_heads, intermediate_size, is_tied = _QWEN3[match[1]]
    arguments: dict[str, Any] = {
        "vocab_size": 151936,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": intermediate_size,
        "tie_word_embeddings": is_tied,
    }
    return Qwen3Config(**arguments)


def _check_dense(config: PreTrainedConfig) -> None:
    if any(getattr(config, name, None) for name in _MOE_FIELDS) or not hasattr(config, "intermediate_size"):
        raise ValueError(f"{config.model_type} is no dense decoder with a gated MLP; only those are counted")


def _num_parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for name, parameter in layer.named_parameters() if "lora_" not in name)


def _linear_layers(layer: nn.Module) -> tuple[LinearLayer, ...]:
    modules = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    ranks = {
        name.partition(".lora_A.")[0]: module.out_features for name, module in modules.items() if ".lora_A." in name
    }
    found = []
    for name, module in modules.items():
        if ".lora_" in name:
            continue
        plain = name.removesuffix(".base_layer")
        found.append(
            LinearLayer(
                name=plain,
                in_features=module.in_features,
                out_features=module.out_features,
                adapter_rank=ranks.get(plain, 0),
            )
        )
    return tuple(found)
