"""The configuration of a run in its folder: `sgsd fit --config RUN/config.yaml` repeats the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, Namespace, SaveConfigCallback

from sgsd_lightning.checkpoints.identity import Identity, settings_identity
from sgsd_lightning.files import atomically

CONFIG_FILE = "config.yaml"
OF_ONE_INVOCATION = ("ckpt_path", "weights_only")
"""Arguments of `fit` alone, which other commands do not know or mean otherwise."""


class SavedConfig(SaveConfigCallback):
    """Writes every setting with its value into the run folder as ``config.yaml``, when training starts.

    Not among the logs, where Lightning writes it. What belongs to one start of the run is left out: the checkpoint that
    it resumes, and places inside the run folder, so that the file repeats the run in any folder.

    Args:
        parser: of the command.
        config: as it was settled.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **settings: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **settings)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        config = self.config.clone()
        for name in OF_ONE_INVOCATION:
            config.pop(name, None)
        for name in ("checkpoint", "best_checkpoint"):
            if config[name].dirpath == str(folder / "checkpoints"):
                config[name].dirpath = None
        with atomically(folder / CONFIG_FILE) as file:
            file.write(self.parser.dump(config, skip_none=False))


def saved_settings(file: Path) -> Identity:
    """Read the settings that a step depends on; none where there is no such file, or nothing in it."""
    if not file.is_file():
        return {}
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return settings_identity(content) if isinstance(content, dict) else {}
