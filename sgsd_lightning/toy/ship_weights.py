"""Train the base models that ship with the package and write their files, after a change of their recipe.

    python -m sgsd_lightning.toy.ship_weights        (about five minutes on one free core)

The weights depend on the machine that trains them, once: a file says which it was, and every reader has the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import transformers
from safetensors.torch import save_file
from torch import Tensor

from sgsd_lightning.distributed.machine import describe_machine
from sgsd_lightning.toy.base_training import train_base_model
from sgsd_lightning.toy.recipe import BaseModelSettings, recipe_digest
from sgsd_lightning.toy.shipped_weights import COMMAND, RECIPES, SEEDS, file_name, weights_folder
from sgsd_lightning.toy.tokenizer import toy_tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files of every recipe."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="the package loads seeds 0, 1 and 2")
    parser.add_argument("--out", type=Path, default=weights_folder(), help="output folder; default: the package's")
    options = parser.parse_args(arguments)
    for name, settings in RECIPES.items():
        for seed in options.seeds:
            path = options.out / file_name(name, seed)
            ship(path, seed, settings)
            print(path, flush=True)


def ship(path: Path, seed: int, settings: BaseModelSettings) -> None:
    """Train one base model and write its parameters as float16.

    Raises:
        ValueError: for a weight beyond float16.
    """
    tokenizer = toy_tokenizer()
    model = train_base_model(seed, settings, tokenizer)
    tensors = {name: _halved(name, parameter) for name, parameter in model.named_parameters()}
    metadata = {
        "recipe": recipe_digest(seed, settings, tokenizer),
        "seed": str(seed),
        "command": f"{COMMAND} --seeds {seed}",
        "machine": describe_machine(),
        "transformers": transformers.__version__,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)


def _halved(name: str, parameter: Tensor) -> Tensor:
    halved = parameter.detach().half().contiguous()
    if not halved.isfinite().all():
        raise ValueError(f"{name}: a weight is beyond float16, so training diverged")
    return halved


if __name__ == "__main__":
    main()
