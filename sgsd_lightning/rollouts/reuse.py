"""Several optimizer steps on the same rollouts, which are kept with their teachers and saved in checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sgsd_lightning.distributed.processes import num_processes
from sgsd_lightning.types import (
    Completion,
    FinishReason,
    JudgedRollout,
    Problem,
    RewardSpan,
    Rollout,
    Taught,
    TeacherContext,
    TokenSequence,
    Turn,
    Verdict,
)
from sgsd_lightning.types.arguments import require_at_least

log = logging.getLogger(__name__)

Restore = Callable[[Sequence[JudgedRollout], Sequence[Sequence[TeacherContext]]], Taught]
"""Restores a `Taught` from judged rollouts and the contexts of those that are not dropped."""


class RolloutReuse:
    """Keeps the `Taught` of each micro-batch of a step until its last update.

    The loader hands out a step's micro-batches ``updates_per_batch`` times in a row; those after the first time find
    their rollouts here, with the contexts that were built for them.

    Args:
        updates_per_batch: optimizer steps on the same rollouts, at least 1.
    """

    def __init__(self, updates_per_batch: int) -> None:
        require_at_least(1, "model.updates_per_batch", updates_per_batch)
        self.updates_per_batch = updates_per_batch
        self._kept: dict[int, Mapping[str, Taught]] = {}
        self._loaded: Mapping[int, Mapping[str, Any]] = {}

    def find(
        self, problems: Sequence[Problem], batch_idx: int, micro_batches: int, restore: Mapping[str, Restore]
    ) -> Mapping[str, Taught] | None:
        """Return by policy what an earlier update on the same problems kept; None if they must be sampled.

        Args:
            problems: of the micro-batch.
            batch_idx: of the micro-batch in its epoch.
            micro_batches: in an optimizer step.
            restore: by policy, restores rows from a checkpoint's rollouts and contexts.
        """
        place = batch_idx % micro_batches
        if batch_idx // micro_batches % self.updates_per_batch == 0:
            return None
        if place in self._loaded:
            saved = self._loaded[place]
            self._kept[place] = {
                name: restore[name](_judged(rows["rollouts"], problems), _contexts(rows["contexts"]))
                for name, rows in saved.items()
            }
            self._loaded = {other: rows for other, rows in self._loaded.items() if other != place}
        return self._kept.get(place)

    def keep(self, taught: Mapping[str, Taught], batch_idx: int, micro_batches: int) -> None:
        """Keep a micro-batch for the next updates, if there are any."""
        if self.updates_per_batch > 1:
            self._kept[batch_idx % micro_batches] = taught

    def check_data(self, updates_per_batch: int) -> None:
        """Check that the data module repeats a step's problems once per update.

        Raises:
            ValueError: if it does not.
        """
        if updates_per_batch != self.updates_per_batch:
            raise ValueError(
                f"model.updates_per_batch is {self.updates_per_batch} and data.updates_per_batch is "
                f"{updates_per_batch}: the data module hands out a step's problems once per update, so that both must "
                "be the same"
            )

    def state_dict(self) -> dict[int, dict[str, Any]]:
        """Return this process's state by index in the step and policy: plain values and tensors; problems by id."""
        kept = {
            place: {
                name: {
                    "rollouts": [_row(judged) for judged in taught.sampled],
                    "contexts": [[asdict(context) for context in contexts] for contexts in taught.contexts],
                }
                for name, taught in policies.items()
            }
            for place, policies in self._kept.items()
        }
        return {**{place: dict(policies) for place, policies in self._loaded.items()}, **kept}

    def load_state_dicts(self, states: Sequence[Mapping[int, Mapping[str, Any]]], rank: int) -> None:
        """Take this process's part of what :meth:`state_dict` gave on every process.

        On another number of processes a step's problems are split differently; kept rollouts that no longer fit are
        sampled again.
        """
        self._kept, self._loaded = {}, {}
        if len(states) == num_processes():
            self._loaded = states[rank]
        elif any(states):
            log.warning(
                "the checkpoint holds rollouts for further updates, split over %d processes; %d run now, so that the "
                "next update samples its own",
                len(states),
                num_processes(),
            )


def _row(judged: JudgedRollout) -> dict[str, Any]:
    rollout = judged.rollout
    return {
        **{entry.name: getattr(rollout, entry.name) for entry in fields(Rollout)},
        "problem": rollout.problem.problem_id,
        "messages": [dict(message) for message in rollout.messages],
        "turns": [_turn_row(turn) for turn in rollout.turns],
        "verdict": asdict(judged.verdict),
    }


def _turn_row(turn: Turn) -> dict[str, Any]:
    completion = {entry.name: getattr(turn.completion, entry.name) for entry in fields(Completion)}
    return {
        "prompt_ids": turn.prompt_ids,
        "text": turn.text,
        "is_trained": turn.is_trained,
        "completion": {**completion, "finish_reason": str(turn.completion.finish_reason)},
    }


def _judged(rows: Sequence[Mapping[str, Any]], problems: Sequence[Problem]) -> list[JudgedRollout]:
    by_id = {problem.problem_id: problem for problem in problems}
    unknown = next((row["problem"] for row in rows if row["problem"] not in by_id), None)
    if unknown is not None:
        raise ValueError(
            f"the checkpoint holds rollouts of problem {unknown!r}, which its micro-batch does not have now"
        )
    return [
        JudgedRollout(rollout=_rollout(row, by_id[row["problem"]]), verdict=_verdict(row["verdict"])) for row in rows
    ]


def _rollout(row: Mapping[str, Any], problem: Problem) -> Rollout:
    values = {name: value for name, value in row.items() if name not in ("problem", "turns", "verdict")}
    return Rollout(**values, problem=problem, turns=tuple(_turn(turn) for turn in row["turns"]))


def _turn(row: Mapping[str, Any]) -> Turn:
    completion = row["completion"]
    finish_reason = FinishReason(completion["finish_reason"])
    return Turn(**{**row, "completion": Completion(**{**completion, "finish_reason": finish_reason})})


def _verdict(row: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**row, "spans": tuple(RewardSpan(**span) for span in row["spans"])})


def _contexts(rows: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[TeacherContext]]:
    return [[_context(row) for row in contexts] for contexts in rows]


def _context(row: Mapping[str, Any]) -> TeacherContext:
    sequences = row["sequences"]
    return TeacherContext(
        **{**row, "sequences": None if sequences is None else tuple(TokenSequence(**entry) for entry in sequences)}
    )
