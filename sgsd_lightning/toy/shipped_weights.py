"""Base models that ship with the package, as float16: the same weights on every machine.

`ship_weights` trains and writes them; every file says which recipe it was made by.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from sgsd_lightning.toy.base_training import new_model
from sgsd_lightning.toy.recipe import READS_SOLUTIONS, BaseModelSettings

COMMAND = "python -m sgsd_lightning.toy.ship_weights"
SEEDS = (0, 1, 2)
RECIPES = {"demo": BaseModelSettings(), "reads_solutions": READS_SOLUTIONS}
"""By the name that begins the files' names."""


class NotShipped(LookupError):
    """Why a base model is not in the package, as a clause."""


def weights_folder() -> Path:
    """Where the files lie."""
    return Path(str(resources.files("sgsd_lightning.toy").joinpath("weights")))


def file_name(recipe: str, seed: int) -> str:
    """``demo-seed-0.safetensors``."""
    return f"{recipe}-seed-{seed}.safetensors"


def shipped_file(seed: int, settings: BaseModelSettings, digest: str) -> Path:
    """The file of the weights that a recipe with this digest makes.

    Raises:
        NotShipped: for other settings, another seed, or a file that another recipe made.
        ValueError: for a file that is missing or damaged.
    """
    names = [name for name, recipe in RECIPES.items() if recipe == settings]
    if not names:
        raise NotShipped("a toy base model with settings of its own is not part of the package")
    if seed not in SEEDS:
        raise NotShipped(f"the toy base model of seed {seed} is not part of the package, which has seeds 0, 1 and 2")
    path = weights_folder() / file_name(names[0], seed)
    found = _metadata(path).get("recipe", "none")
    if found != digest:
        raise NotShipped(
            f"{path.name} holds a toy base model of another recipe (digest {found[:12]}; now it is {digest[:12]}, and "
            f"`{COMMAND}` makes the file anew)"
        )
    return path


def load_shipped(path: Path, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """The model of a file, in float32, in evaluation mode."""
    model = new_model(0, settings, tokenizer)
    parameters = dict(model.named_parameters())
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(file.get_tensor(name))
    return model.eval()


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path}: a toy base model that ships with the package cannot be read ({error}); install the package again"
        ) from error
