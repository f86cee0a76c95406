"""Counts the outcomes of questions to a language model, and stops the run when too large a share fails."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sgsd_lightning.distributed.processes import process_index
from sgsd_lightning.language_models.base import ModelUnavailableError
from sgsd_lightning.types.arguments import require, require_at_least

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a question ended; the values are the names under which they are counted."""

    ANSWERED = "answered"
    LATE = "failed_late"
    """The deadline of its batch passed."""
    UNPARSABLE = "failed_parse"
    """None of its replies could be parsed, those under other seeds included."""
    NO_REPLY = "failed_call"
    """The call failed: refused, cut off, empty."""


WORDS = {
    Outcome.LATE: "not answered before the deadline",
    Outcome.UNPARSABLE: "unparsable",
    Outcome.NO_REPLY: "without a reply",
}


class TooManyFailuresError(ModelUnavailableError):
    """More questions failed than the run allows; the message names the share, the limit and its setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureLimit:
    """When failures of a language model end a run."""

    max_failed_frac: float = 0.2
    """The largest share of failed questions in the window. 1 never ends the run."""
    window: int = 200
    """How many of the latest questions of all processes are counted."""
    min_questions: int = 20
    """The share is checked only after this many questions."""

    def __post_init__(self) -> None:
        frac, least = self.max_failed_frac, self.min_questions
        require(0 <= frac <= 1, "failure_limit.max_failed_frac", "be in [0, 1]", frac)
        require_at_least(1, "failure_limit.window", self.window)
        is_reached = 1 <= least <= self.window
        require(is_reached, "failure_limit.min_questions", "be at least 1 and at most the window", least)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionRecord:
    """The outcome of one question."""

    outcome: Outcome
    num_calls: int
    """Calls that it took, without those answered from a cache."""
    num_cache_hits: int
    num_retries: int
    """Times that it was asked again with another seed."""
    reason: str = ""
    """Why it failed."""


class CallTally:
    """Counts questions by their outcome, the same on every process, and stops the run when too many fail.

    Args:
        name: The part that asks, as in the settings: ``judge`` has ``judge.max_failed_frac``.
        limit: None takes the defaults.
    """

    def __init__(self, name: str = "language_model", limit: FailureLimit | None = None) -> None:
        self.name = name
        self.limit = limit or FailureLimit()
        self._counts: Counter[str] = Counter()
        self._latest: deque[Outcome] = deque(maxlen=self.limit.window)

    @property
    def has_answers(self) -> bool:
        """Whether any question was answered so far, which shows that the model's settings are right."""
        return self._counts[Outcome.ANSWERED] > 0

    def counts(self) -> dict[str, int]:
        """Return counts since the start of the run.

        ``questions`` is what was asked; of these ``failed_late``, ``failed_parse`` and ``failed_call`` failed.
        ``calls`` are calls of the model with ``retries`` among them, ``cache_hits`` replies without a call.
        """
        failures = [outcome for outcome in Outcome if outcome is not Outcome.ANSWERED]
        return {name: self._counts[name] for name in ("questions", "calls", "cache_hits", "retries", *failures)}

    def add(self, records: Sequence[QuestionRecord]) -> None:
        """Count a batch of questions.

        Raises:
            TooManyFailuresError: if more of the latest questions failed than the limit allows.
        """
        for record in records:
            self._counts["questions"] += 1
            self._counts["calls"] += record.num_calls
            self._counts["cache_hits"] += record.num_cache_hits
            self._counts["retries"] += record.num_retries
            self._counts[record.outcome] += 1
            self._latest.append(record.outcome)
        failed = [record for record in records if record.outcome is not Outcome.ANSWERED]
        if failed:
            self._report(failed, len(records))

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self._counts), "latest": [str(outcome) for outcome in self._latest]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._counts = Counter(state["counts"])
        self._latest = deque(map(Outcome, state["latest"]), maxlen=self.limit.window)

    def _report(self, failed: Sequence[QuestionRecord], num: int) -> None:
        last = failed[-1].reason
        num_failed, num_latest = sum(outcome is not Outcome.ANSWERED for outcome in self._latest), len(self._latest)
        if num_latest >= self.limit.min_questions and num_failed > self.limit.max_failed_frac * num_latest:
            raise TooManyFailuresError(
                f"{num_failed} of the last {num_latest} questions to {self.name} failed "
                f"({num_failed / num_latest:.0%}: {_describe_failures(self._latest)}), which is more than "
                f"{self.name}.max_failed_frac = {self.limit.max_failed_frac:g} allows; the last one: {last}"
            )
        if process_index() == 0:
            kinds = _describe_failures(record.outcome for record in failed)
            log.warning(
                "%d of %d questions to %s failed (%s); the last one: %s", len(failed), num, self.name, kinds, last
            )


def _describe_failures(outcomes: Any) -> str:
    found = Counter(outcomes)
    return ", ".join(f"{found[outcome]} {words}" for outcome, words in WORDS.items() if found[outcome])
