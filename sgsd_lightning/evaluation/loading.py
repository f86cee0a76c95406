"""Loads a policy for evaluation and export: tokenizer and weights, nothing of training."""

from __future__ import annotations

from pathlib import Path

from sgsd_lightning.checkpoints.reading import load_checkpoint
from sgsd_lightning.module import SelfDistillation


def load_policy(model: SelfDistillation, ckpt_path: str | None) -> None:
    """Load tokenizer and weights, those of a checkpoint if one is named, without the training contexts."""
    for learner in model.learners.values():
        learner.load_tokenizer()
    model.configure_model()
    if ckpt_path is not None:
        checkpoint = load_checkpoint(Path(ckpt_path))
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
