"""Derives seeds from names and numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*parts: str | int) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else, on any machine and in any process.

    A rollout's seed derives from (run seed, optimizer step, problem id, index in its group): not from the rank, the
    micro-batch or what was sampled before, so the same rollouts come out however a step is split over processes.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


DEFAULT_POLICY = "policy"
"""The name of a run's only policy."""


def rollout_seed(
    stream: str, seed: int, *, step: int | None, policy: str, problem: str, sample: int, turn: int = 0
) -> int:
    """The seed of one completion.

    The only policy of a run and the first turn of a conversation add nothing, so that a run with one policy and one
    turn does not depend on whether others could exist.

    Args:
        stream: What the completion is for, such as ``rollout`` or ``evaluation``.
        seed: The run's.
        step: The optimizer step; None for the same noise at every step.
        policy: Its name.
        problem: Its id.
        sample: Index in the problem's group.
        turn: Index in the conversation.
    """
    parts: list[str | int] = [stream, seed, *([] if step is None else [step]), problem, sample]
    parts += [] if policy == DEFAULT_POLICY else [f"policy {policy}"]
    return derive_seed(*parts, *([] if turn == 0 else [f"turn {turn}"]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from ``seed`` within this block; afterwards its random states are what they were before.

    Of the GPUs, only the current one is seeded and restored: this process draws on no other.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
