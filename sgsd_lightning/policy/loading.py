"""Where a policy comes from: a pretrained model by name or path, or random weights."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
)

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.policy.gguf import converted_folder, is_gguf
from sgsd_lightning.policy.lora import LoraSettings, inject_lora, with_adapter
from sgsd_lightning.scoring.attention import allow_cudnn_attention, resolve_attention
from sgsd_lightning.scoring.check import check_decoding, check_score
from sgsd_lightning.scoring.compilation import compile_layers
from sgsd_lightning.seeding import seeded
from sgsd_lightning.types import Completion, TokenSequence
from sgsd_lightning.types.arguments import require, require_at_least, require_choice

log = logging.getLogger(__name__)

DtypeName = Literal["float32", "bfloat16", "float16"]


class PolicySource(ABC):
    """Gives a policy's tokenizer and its initial model, the same ones whenever it is asked."""

    @abstractmethod
    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer with a chat template, an end-of-sequence and a padding token. Cheap: called before the model."""

    @abstractmethod
    def load_model(self) -> PreTrainedModel:
        """A causal LM in training mode, without dropout; trained parameters require gradients.

        It is on the CPU or, if it is read from files, on torch's default device: Lightning sets that to a GPU while it
        configures the model. Values drawn from a seed are drawn on the CPU, so that they are the same everywhere.
        """

    def sequences(self, prompt_ids: Sequence[int], completion: Completion) -> tuple[TokenSequence, ...]:
        """How this policy's model reads a completion after a prompt; the targets in order are the completion's ids."""
        return (TokenSequence.causal(prompt_ids, completion.ids),)


class PretrainedPolicy(PolicySource):
    """Any Hugging Face causal LM.

    Args:
        model_name_or_path: A folder, a name on the hub, or a GGUF file, which is converted once: its path, or
            ``package://some_package/file.gguf``.
        dtype: Of the weights. Full training in bfloat16 rounds small updates away; LoRA's adapters are always float32.
        attention: ``auto``, ``sgsd_varlen``, or a name that transformers knows (``flash_attention_2``, ``sdpa``,
            ``flex_attention``, ``eager``).
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them.
        compile: Score with layers compiled by `torch.compile`: some minutes at the first step, faster steps after it.
        lora: Train adapters instead of all weights.
        revision: A branch, tag or commit on the hub.
        trust_remote_code: Run model code that comes with the weights.
        tokenizer_name_or_path: Where the tokenizer is, when not beside the model.
        cudnn_attention: Let torch compute attention by cuDNN where it prefers to; see `allow_cudnn_attention`.
        adapter_path: The folder of a LoRA adapter that is added to the weights, such as ``sgsd export
            --adapter=adapter`` writes; its base model goes under ``model_name_or_path``.
    """

    def __init__(
        self,
        model_name_or_path: str,
        dtype: DtypeName = "float32",
        attention: str = "auto",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        lora: LoraSettings | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        tokenizer_name_or_path: str | None = None,
        adapter_path: str | None = None,
        cudnn_attention: bool = False,
    ) -> None:
        self.model_name_or_path = model_name_or_path
        self.dtype = _torch_dtype(dtype)
        self.attention = attention
        self.gradient_checkpointing = gradient_checkpointing
        self.compile = compile
        self.lora = lora
        self.tokenizer_name_or_path = tokenizer_name_or_path
        self.adapter_path = adapter_path
        self.cudnn_attention = cudnn_attention
        self._options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        self._converted: dict[str, str] = {}

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        name = self._place(self.tokenizer_name_or_path or self.model_name_or_path)
        # a revision is the model repository's, which a tokenizer from elsewhere does not have
        options = dict(self._options)
        if self.tokenizer_name_or_path is not None:
            options.pop("revision")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
        except (OSError, ValueError) as error:
            raise _not_loadable("tokenizer", name, error) from error
        _check_tokenizer(tokenizer, name, self._load_config())
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "left"
        return tokenizer

    def load_model(self) -> PreTrainedModel:
        config = self._load_config()
        _disable_dropout_settings(config)
        attention = resolve_attention(self.attention, config, self.dtype)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self._place(self.model_name_or_path),
                config=config,
                dtype=self.dtype,
                attn_implementation=attention,
                **self._options,
            )
        except OSError as error:
            raise _not_loadable("model", self.model_name_or_path, error) from error
        except (ImportError, KeyError, ValueError) as error:
            raise ValueError(
                f"policy: the model {self.model_name_or_path!r} does not load under policy.attention {attention} "
                f"({str(error).splitlines()[0]}); set it to auto or eager"
            ) from error
        if self.adapter_path is not None:
            model = with_adapter(model, self.adapter_path)
        if self.lora is None and self.dtype != torch.float32:
            log.warning(
                "all weights are trained in %s, which rounds small updates away; use policy.dtype float32 (with "
                "trainer.precision bf16-mixed on a GPU), or policy.lora",
                self.dtype,
            )
        allow_cudnn_attention(self.cudnn_attention)
        return _prepared(model, self.lora, self.gradient_checkpointing, self.compile)

    def _load_config(self) -> PreTrainedConfig:
        place = self._place(self.model_name_or_path)
        folder = Path(place)
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            raise ValueError(
                f"policy: {self.model_name_or_path!r} holds a LoRA adapter and no model; give it as "
                "policy.adapter_path, and its base model as policy.model_name_or_path"
            )
        try:
            return AutoConfig.from_pretrained(place, **self._options)
        except (OSError, ValueError) as error:
            raise _not_loadable("model", self.model_name_or_path, error) from error

    def _place(self, name: str) -> str:
        """Where Hugging Face libraries find what a name or path stands for."""
        if not is_gguf(name):
            return name
        if name not in self._converted:
            self._converted[name] = str(converted_folder(name))
        return self._converted[name]


class RandomPolicy(PolicySource):
    """A randomly initialised Qwen3 of any size with a tokenizer of bytes: for trying out everything but quality.

    Args:
        hidden_size: Width; a multiple of twice ``num_heads``.
        num_layers: Decoder layers.
        num_heads: Attention heads.
        num_kv_heads: Key and value heads; divides ``num_heads``.
        intermediate_size: Width of the MLPs.
        max_positions: Longest prompt and completion together, in tokens.
        tie_word_embeddings: Whether head and embedding are one matrix.
        seed: Determines the weights.
        dtype: Of the weights.
        attention: As for `PretrainedPolicy`.
        gradient_checkpointing: As for `PretrainedPolicy`.
        compile: As for `PretrainedPolicy`.
        lora: As for `PretrainedPolicy`.
        cudnn_attention: As for `PretrainedPolicy`.
    """

    def __init__(
        self,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        num_kv_heads: int = 2,
        intermediate_size: int = 256,
        max_positions: int = 32768,
        tie_word_embeddings: bool = True,
        seed: int = 0,
        dtype: DtypeName = "float32",
        attention: str = "auto",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        lora: LoraSettings | None = None,
        cudnn_attention: bool = False,
    ) -> None:
        sizes = {
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "intermediate_size": intermediate_size,
            "max_positions": max_positions,
        }
        for name, size in sizes.items():
            require_at_least(1, f"policy.{name}", size)
        is_multiple, divides = hidden_size % (2 * num_heads) == 0, num_heads % num_kv_heads == 0
        require(is_multiple, "policy.hidden_size", f"be a multiple of twice num_heads = {num_heads}", hidden_size)
        require(divides, "policy.num_kv_heads", f"divide num_heads = {num_heads}", num_kv_heads)
        self.config_arguments: dict[str, Any] = {
            "hidden_size": hidden_size,
            "head_dim": hidden_size // num_heads,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_kv_heads,
            "intermediate_size": intermediate_size,
            "max_position_embeddings": max_positions,
            "tie_word_embeddings": tie_word_embeddings,
        }
        self.seed = seed
        self.dtype = _torch_dtype(dtype)
        self.attention = attention
        self.gradient_checkpointing = gradient_checkpointing
        self.compile = compile
        self.lora = lora
        self.cudnn_attention = cudnn_attention

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        return byte_tokenizer()

    def load_model(self) -> PreTrainedModel:
        tokenizer = self.load_tokenizer()
        config = Qwen3Config(
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **self.config_arguments,
        )
        attention = resolve_attention(self.attention, config, self.dtype)
        with seeded(self.seed), torch.device("cpu"):
            model = AutoModelForCausalLM.from_config(config, dtype=self.dtype, attn_implementation=attention)
        allow_cudnn_attention(self.cudnn_attention)
        return _prepared(model, self.lora, self.gradient_checkpointing, self.compile)


def _prepared(
    model: PreTrainedModel, lora: LoraSettings | None, gradient_checkpointing: bool, is_compiled: bool
) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.device("cpu"):  # packed rows and adapters are made there, then moved to where the model is
        check_score(model.eval())
        check_decoding(model)
        if lora is not None:
            inject_lora(model, lora)
    if gradient_checkpointing:
        checkpoint_activations(model)
    if is_compiled:
        compile_layers(model)
    return model.train()


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass, by torch's variant that also works when embeddings are frozen."""
    # renamed within transformers 5
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _disable_dropout_settings(config: PreTrainedConfig) -> None:
    """Layers read their dropout from the configuration, under a name of their own."""
    for part in {id(config): config, id(text := config.get_text_config()): text}.values():
        for name, value in part.to_dict().items():
            if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
                setattr(part, name, 0.0)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, config: PreTrainedConfig) -> None:
    vocab_size = config.get_text_config().vocab_size
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer {name!r} has no end-of-sequence token, without which no completion ends")
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer {name!r} has {len(tokenizer)} tokens but the model's vocabulary ends at {vocab_size}: "
            "they do not belong together"
        )


def _not_loadable(what: str, name: str, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(
        f"policy: the {what} {name!r} is no local folder that holds one and was not found on the Hugging Face hub "
        f"({reason}); check the spelling, or download it and give its folder"
    )


def _torch_dtype(name: str) -> torch.dtype:
    require_choice(DtypeName, "policy.dtype", name)
    dtype: torch.dtype = getattr(torch, name)
    return dtype
