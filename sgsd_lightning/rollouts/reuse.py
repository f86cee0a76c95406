"""Several optimizer steps on the same rollouts: they are kept for as many steps, and in the checkpoint between."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from sgsd_lightning.distributed.processes import num_processes
from sgsd_lightning.types import FinishReason, Problem, Rollout, Verdict

log = logging.getLogger(__name__)


class JudgedRollouts(NamedTuple):
    """The rollouts of a micro-batch and what the verifier says of them, in the same order."""

    rollouts: Sequence[Rollout]
    verdicts: Sequence[Verdict]


class RolloutReuse:
    """Keeps the judged rollouts of each micro-batch of a step until the last update on them.

    The loader hands out a step's micro-batches ``updates_per_batch`` times in a row; those after the first time find
    their rollouts here.

    Args:
        updates_per_batch: optimizer steps on the same rollouts, at least 1.
    """

    def __init__(self, updates_per_batch: int) -> None:
        if updates_per_batch < 1:
            raise ValueError(f"model.updates_per_batch must be at least 1; got {updates_per_batch}")
        self.updates_per_batch = updates_per_batch
        self._kept: dict[int, JudgedRollouts] = {}
        self._loaded: Mapping[int, Sequence[Mapping[str, Any]]] = {}

    def find(self, problems: Sequence[Problem], batch_idx: int, micro_batches: int) -> JudgedRollouts | None:
        """The rollouts of an earlier update on the same problems; None where they are to be sampled.

        Args:
            problems: of the micro-batch.
            batch_idx: of the micro-batch in its epoch.
            micro_batches: in an optimizer step.
        """
        place = batch_idx % micro_batches
        if batch_idx // micro_batches % self.updates_per_batch == 0:
            return None
        if place in self._loaded:
            self._kept[place] = _judged(self._loaded[place], problems)
            self._loaded = {other: rows for other, rows in self._loaded.items() if other != place}
        return self._kept.get(place)

    def keep(self, judged: JudgedRollouts, batch_idx: int, micro_batches: int) -> None:
        """For the updates that follow, if any do."""
        if self.updates_per_batch > 1:
            self._kept[batch_idx % micro_batches] = judged

    def check_data(self, updates_per_batch: int) -> None:
        """The data module must hand out a step's problems as often as there are updates on their rollouts.

        Raises:
            ValueError: if it does not.
        """
        if updates_per_batch != self.updates_per_batch:
            raise ValueError(
                f"model.updates_per_batch is {self.updates_per_batch} and data.updates_per_batch is "
                f"{updates_per_batch}: the data module hands out a step's problems once an update, so that both must "
                "be the same"
            )

    def state_dict(self) -> dict[int, list[dict[str, Any]]]:
        """Of this process: by place in the step, a row of plain values and tensors each rollout; problems by id."""
        kept = {place: [_row(*pair) for pair in zip(*judged, strict=True)] for place, judged in self._kept.items()}
        return {**{place: list(map(dict, rows)) for place, rows in self._loaded.items()}, **kept}

    def load_state_dicts(self, states: Sequence[Mapping[int, Sequence[Mapping[str, Any]]]], rank: int) -> None:
        """Take up this process's part of what :meth:`state_dict` gave on every process.

        With another number of processes the problems of a step are split otherwise; the rollouts that the next
        updates would have been on are then sampled anew.
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


def _row(rollout: Rollout, verdict: Verdict) -> dict[str, Any]:
    values = {entry.name: getattr(rollout, entry.name) for entry in fields(Rollout) if entry.name != "problem"}
    return {
        **values,
        "problem_id": rollout.problem.problem_id,
        "finish_reason": str(rollout.finish_reason),
        "verdict": {entry.name: getattr(verdict, entry.name) for entry in fields(Verdict)},
    }


def _judged(rows: Sequence[Mapping[str, Any]], problems: Sequence[Problem]) -> JudgedRollouts:
    by_id = {problem.problem_id: problem for problem in problems}
    unknown = next((row["problem_id"] for row in rows if row["problem_id"] not in by_id), None)
    if unknown is not None:
        raise ValueError(
            f"the checkpoint holds rollouts of problem {unknown!r}, which its micro-batch does not have now"
        )
    rollouts = [
        Rollout(
            **{name: value for name, value in row.items() if name not in ("problem_id", "verdict", "finish_reason")},
            problem=by_id[row["problem_id"]],
            finish_reason=FinishReason(row["finish_reason"]),
        )
        for row in rows
    ]
    return JudgedRollouts(rollouts, [Verdict(**row["verdict"]) for row in rows])
