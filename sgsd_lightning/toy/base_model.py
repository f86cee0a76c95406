"""The toy world's base model as a folder: weights that ship with the package, or trained here, and cached."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from sgsd_lightning.distributed.machine import describe_machine
from sgsd_lightning.files import folder_atomically
from sgsd_lightning.toy.base_training import train_base_model
from sgsd_lightning.toy.recipe import BaseModelSettings, recipe_digest
from sgsd_lightning.toy.shipped_weights import NotShipped, load_shipped, shipped_file
from sgsd_lightning.toy.tokenizer import toy_tokenizer

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SGSD_TOY_CACHE"
_COMPLETE_MARK = "recipe.json"


def build_base_model(seed: int = 0, cache_dir: Path | None = None, settings: BaseModelSettings | None = None) -> Path:
    """The folder of the base model and its tokenizer, made on the first call and found again afterwards.

    Weights that ship with the package are the same on every machine. Those of other seeds and recipes are trained
    here, which is logged, and depend on the machine's arithmetic.

    Args:
        seed: Determines the weights.
        cache_dir: Where to keep models; the default is ``$SGSD_TOY_CACHE``, else ``~/.cache/sgsd_lightning/toy``.
        settings: Another recipe than the demo's.

    Returns:
        A folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load.

    Raises:
        ValueError: for a damaged file of the package.
    """
    settings = settings or BaseModelSettings()
    tokenizer = toy_tokenizer()
    digest = recipe_digest(seed, settings, tokenizer)
    try:
        shipped = shipped_file(seed, settings, digest)
    except NotShipped as reason:
        origin = {"trained_with": f"torch {torch.__version__}"}
        folder, mark = _place(cache_dir, digest, origin)
        if not _is_complete(folder):
            log.warning(
                "%s: it is trained here, and its weights depend on the machine (%s)", reason, describe_machine()
            )
            _save(folder, train_base_model(seed, settings, tokenizer), tokenizer, mark)
    else:
        origin = {"weights": hashlib.sha256(shipped.read_bytes()).hexdigest()}
        folder, mark = _place(cache_dir, digest, origin)
        if not _is_complete(folder):
            _save(folder, load_shipped(shipped, settings, tokenizer), tokenizer, mark)
    return folder


def _place(cache_dir: Path | None, digest: str, origin: dict[str, str]) -> tuple[Path, str]:
    """The folder of a model, and what its mark says: all that the folder's content depends on."""
    content = {"recipe": digest, "transformers": transformers.__version__, **origin}
    mark = json.dumps(content, indent=2, sort_keys=True)
    return (cache_dir or _default_cache_dir()) / hashlib.sha256(mark.encode()).hexdigest()[:16], mark


def _is_complete(folder: Path) -> bool:
    return (folder / _COMPLETE_MARK).is_file()


def _save(folder: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, mark: str) -> None:
    with folder_atomically(folder, _COMPLETE_MARK) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        (staging / _COMPLETE_MARK).write_text(mark, encoding="utf-8")


def _default_cache_dir() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "sgsd_lightning" / "toy"
