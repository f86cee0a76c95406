"""Which checkpoint a command reads, and whether it was trained with what the command's configuration says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgsd_lightning.checkpoints.identity import Identity
from sgsd_lightning.checkpoints.provenance import Provenance, changed_settings, method_of, read_provenance

log = logging.getLogger(__name__)

NUM_SHOWN = 6
"""Settings that differ, in a warning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint, if there is one, and the configuration that it is read under."""

    checkpoint: Provenance | None
    """None for the policy as it is before training."""
    configs: Sequence[str]
    """Files of the configuration, in the order in which they are laid over one another."""
    settings: Identity
    """Of the configuration."""

    @property
    def changed(self) -> list[str]:
        """Settings that differ, a line each."""
        return [] if self.checkpoint is None else changed_settings(self.checkpoint.settings, self.settings)

    def to_json(self) -> dict[str, Any]:
        """For a file of results."""
        found = self.checkpoint
        of_checkpoint = None if found is None else {"file": found.file, "step": found.step, "method": found.method}
        of_config = {"files": list(self.configs), "method": method_of(self.settings), "differs": self.changed}
        return {"checkpoint": of_checkpoint, "configuration": of_config}


def read_source(ckpt_path: str | None, configs: Sequence[str], settings: Identity) -> Source:
    """Read what the checkpoint says of itself.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it cannot be read.
    """
    checkpoint = None if ckpt_path is None else read_provenance(Path(ckpt_path))
    return Source(checkpoint=checkpoint, configs=configs, settings=settings)


def tell_source(source: Source) -> None:
    """Say which checkpoint is read, and warn of settings that differ."""
    checkpoint = source.checkpoint
    log.info("reads %s", "no checkpoint: the policy as it is before training" if checkpoint is None else checkpoint)
    warn_of_changes(source.changed, "the configuration")


def warn_of_changes(changed: Sequence[str], other: str) -> None:
    """Warn that a checkpoint was written with other settings than ``other`` has."""
    if not changed:
        return
    listed = "".join(f"\n  {line}" for line in changed[:NUM_SHOWN])
    more = f"\n  and {len(changed) - NUM_SHOWN} more" if len(changed) > NUM_SHOWN else ""
    log.warning("the checkpoint was written with other settings than those of %s:%s%s", other, listed, more)
