"""`sgsd export`: a policy as a Hugging Face folder, which never takes the place of another model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sgsd_lightning.checkpoints.identity import sampled_weights_digest
from sgsd_lightning.cli.read_checkpoint import Source
from sgsd_lightning.evaluation.loading import load_policy
from sgsd_lightning.files import atomically
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.policy import export_model
from sgsd_lightning.texts.strict_json import read_json

NOTE = "sgsd_export.json"
"""What an export says of itself, beside the model."""
OF_A_MODEL = ("config.json", "adapter_config.json", "*.safetensors", "*.bin", "*.pt", "*.gguf", "tokenizer*")


def export(
    module: SelfDistillation,
    folder: Path,
    ckpt_path: str | None,
    adapter: Literal["merged", "adapter"],
    source: Source | None,
) -> None:
    """Write the model and say where it comes from; the same export may be made again.

    Raises:
        FileExistsError: if the folder holds another model.
    """
    known = _known(folder)
    load_policy(module, ckpt_path)
    identity = {"weights": sampled_weights_digest(module.model), "adapter": adapter}
    if known is not None and {name: known.get(name) for name in identity} != identity:
        raise FileExistsError(f"--folder {folder} {_description(known)}; export to another folder, or remove it first")
    told = {} if source is None else source.to_json()
    with _filled(folder, json.dumps({**told, **identity}, indent=2) + "\n") as staging:
        export_model(module.model, module.learner.tokenizer, staging, adapter=adapter)
    what = "the adapter alone" if adapter == "adapter" else "weights and tokenizer"
    print(f"wrote {what} to {folder}: {', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))}")


@contextmanager
def _filled(folder: Path, note: str) -> Iterator[Path]:
    """Give a folder to write a model into, whose files move to ``folder`` when the block ends without an error.

    The note moves first: what a kill leaves of the others is then known as ours, and the same export completes it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        staging = Path(made)
        yield staging
        with atomically(folder / NOTE) as file:
            file.write(note)
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def _known(folder: Path) -> dict[str, object] | None:
    """What the folder's export says of itself; None where a model can be written.

    Raises:
        FileExistsError: if it holds a model that no export of ours wrote, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--folder {folder} is a file; export to a folder")
    if (folder / NOTE).is_file():
        note = read_json(folder / NOTE)
        if isinstance(note, dict):
            return note
    found = sorted(path.name for pattern in OF_A_MODEL for path in folder.glob(pattern))
    if found:
        raise FileExistsError(
            f"--folder {folder} holds another model ({found[0]}), which sgsd export did not write; "
            "export to another folder"
        )
    return None


def _description(note: dict[str, object]) -> str:
    checkpoint = note.get("checkpoint")
    if not isinstance(checkpoint, dict):
        return "holds the export of other weights"
    return f"holds the export of {checkpoint.get('file')} (step {checkpoint.get('step')}) or of another kind"
