"""This project's entry of a checkpoint: the state of every policy's parts, and reused rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHECKPOINT_KEY = "sgsd_lightning"
"""The key of this project's entry."""


def check_contents(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return this project's entry.

    Raises:
        ValueError: if the checkpoint is not this project's, or of a version that stored parts elsewhere.
    """
    if CHECKPOINT_KEY not in checkpoint:
        raise ValueError(
            "this checkpoint was not written by sgsd_lightning (it has no entry "
            f"{CHECKPOINT_KEY!r}); a Hugging Face folder goes under policy.init_args.model_name_or_path"
        )
    contents: Mapping[str, Any] = checkpoint[CHECKPOINT_KEY]
    if "learners" not in contents:
        raise ValueError(
            f"this checkpoint is of an earlier edition: its {CHECKPOINT_KEY}.contexts is now "
            f"{CHECKPOINT_KEY}.learners.policy.contexts. Export its policy with the edition that wrote it, and begin "
            "from that folder (policy.init_args.model_name_or_path)"
        )
    return contents


def part_state(checkpoint: Mapping[str, Any], policy: str, part: str) -> Mapping[str, Any]:
    """Return the state of a policy's part, such as ``contexts``; empty if it has none.

    Raises:
        ValueError: as :func:`check_contents`.
    """
    state: Mapping[str, Any] = check_contents(checkpoint)["learners"].get(policy, {}).get(part, {})
    return state
