"""The evidence ledger: polarity and outcome counts per item and per pair of the bank, over a whole training run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgsd_lightning.metrics.intervals import WilsonInterval, wilson_interval
from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.types import Observation

HELPFUL, NEUTRAL, MISLEADING = 1, 0, -1
RIGHT, WRONG = 1, -1
OUTCOMES = (RIGHT, WRONG)
POLARITIES = (HELPFUL, NEUTRAL, MISLEADING)
PAIR_SEPARATOR = "+"
_CELLS = tuple((outcome, polarity) for outcome in OUTCOMES for polarity in POLARITIES)


@dataclass(kw_only=True, slots=True)
class Tally:
    """The counts of one item or pair. ``counts`` never fade; ``recent`` fades with every optimizer step."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_CELLS))
    """Rollouts, by outcome and polarity: right helpful, right neutral, right misleading, then wrong ones."""
    recent: list[float] = field(default_factory=lambda: [0.0] * len(_CELLS))
    """The same counts decayed to ``step``, so that older rollouts weigh less."""
    stance_score_sum: float = 0.0
    """Nats per token."""
    gated_loss_sum: float = 0.0
    """Nats per token."""
    step: int = 0
    """The optimizer step of the newest observation."""

    @property
    def num_uses(self) -> int:
        """Judged rollouts that a teacher with this item scored."""
        return sum(self.counts)

    @property
    def mean_stance_score(self) -> float:
        """Nats per token; above 0 the teacher liked the rollouts better than the student did."""
        return self.stance_score_sum / max(1, self.num_uses)

    @property
    def mean_gated_loss(self) -> float:
        """Nats per token: how much the gate let through."""
        return self.gated_loss_sum / max(1, self.num_uses)

    def count(self, polarity: int, outcome: int | None = None) -> int:
        """Count rollouts of a polarity; ``outcome`` None counts both outcomes."""
        return int(self._sum(self.counts, polarity, outcome))

    def usefulness(self, confidence: float, fade: float = 1.0) -> WilsonInterval:
        """Estimate the helpful rate of its teacher, neutral counting half: 1 always helpful, 0 always misleading."""
        helpful, neutral = (fade * self._sum(self.recent, polarity) for polarity in (HELPFUL, NEUTRAL))
        return wilson_interval(helpful + neutral / 2, fade * sum(self.recent), confidence)

    def misleading(self, confidence: float, fade: float = 1.0) -> WilsonInterval:
        """Estimate the misleading rate of its teacher."""
        return wilson_interval(fade * self._sum(self.recent, MISLEADING), fade * sum(self.recent), confidence)

    def add(self, observation: Observation) -> None:
        """Count one judged rollout."""
        cell = _CELLS.index((observation.outcome, observation.polarity))
        self.counts[cell] += 1
        self.recent[cell] += 1.0
        self.stance_score_sum += observation.stance_score
        self.gated_loss_sum += observation.gated_loss

    @staticmethod
    def _sum(cells: Sequence[float], polarity: int, outcome: int | None = None) -> float:
        return sum(
            value
            for value, (of_outcome, of_polarity) in zip(cells, _CELLS, strict=True)
            if of_polarity == polarity and outcome in (None, of_outcome)
        )


class EvidenceLedger:
    """One tally per item and per pair.

    An observation of a pair counts for the pair, for its skill and for its mistake. Rollouts that the verifier did not
    judge, and those whose scores are not finite, are ignored.

    Args:
        half_life_steps: Optimizer steps after which an observation weighs half in ``recent``; None: it never fades.
        confidence: Of the intervals.
    """

    def __init__(self, half_life_steps: float | None = None, confidence: float = 0.95) -> None:
        self.half_life_steps = half_life_steps
        self.confidence = confidence
        self.step = 0
        self.items: dict[str, Tally] = {}
        self.pairs: dict[str, Tally] = {}
        self.digests: dict[str, str] = {}
        """What the items of every bank so far said, by id: evidence is of a text, and ids may be given out anew."""

    def describe(self, items: Iterable[Skill | Mistake]) -> None:
        """Note what the items say that observations are to come of."""
        self.digests.update({item.item_id: item.digest for item in items})

    def observe(self, step: int, observations: Iterable[Observation]) -> None:
        """Receive one optimizer step's observations."""
        self.step = step
        for observation in observations:
            if observation.outcome not in OUTCOMES or not math.isfinite(observation.stance_score):
                continue
            for tally in self._tallies(observation.source_ids):
                self._fade(tally)
                tally.add(observation)

    def usefulness(self, item_id: str) -> WilsonInterval:
        """Estimate an item's usefulness as of the last step; 0.5 in [0, 1] for an unused one."""
        tally = self.items.get(item_id)
        return WilsonInterval(0.0, 0.5, 1.0) if tally is None else tally.usefulness(self.confidence, self.fade(tally))

    def misleading(self, item_id: str) -> WilsonInterval:
        """Estimate an item's misleading rate as of the last step."""
        tally = self.items.get(item_id)
        return WilsonInterval(0.0, 0.5, 1.0) if tally is None else tally.misleading(self.confidence, self.fade(tally))

    def num_uses(self, item_id: str) -> int:
        """Count the judged rollouts that an item's teachers scored."""
        tally = self.items.get(item_id)
        return 0 if tally is None else tally.num_uses

    def fade(self, tally: Tally) -> float:
        """Return the factor, at most 1, by which ``recent`` has decayed since the tally's last observation."""
        if self.half_life_steps is None:
            return 1.0
        return float(0.5 ** ((self.step - tally.step) / self.half_life_steps))

    def to_json(self) -> str:
        """Serialise for a checkpoint."""
        return json.dumps(
            {
                "step": self.step,
                "half_life_steps": self.half_life_steps,
                "confidence": self.confidence,
                "items": {key: _row(tally) for key, tally in self.items.items()},
                "pairs": {key: _row(tally) for key, tally in self.pairs.items()},
                "digests": self.digests,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> EvidenceLedger:
        """Read a ledger that :meth:`to_json` wrote, settings included."""
        content = json.loads(text)
        ledger = cls(content["half_life_steps"], content["confidence"])
        ledger.load_json(text)
        return ledger

    def load_json(self, text: str) -> None:
        """Load tallies that :meth:`to_json` wrote; keep this ledger's settings."""
        content = json.loads(text)
        self.step = content["step"]
        self.items = {key: _tally(row) for key, row in content["items"].items()}
        self.pairs = {key: _tally(row) for key, row in content["pairs"].items()}
        # checkpoints of earlier versions have none
        self.digests.update(content.get("digests", {}))

    def _tallies(self, source_ids: Sequence[str]) -> Iterator[Tally]:
        for item_id in source_ids:
            yield self.items.setdefault(item_id, Tally(step=self.step))
        yield self.pairs.setdefault(PAIR_SEPARATOR.join(source_ids), Tally(step=self.step))

    def _fade(self, tally: Tally) -> None:
        factor = self.fade(tally)
        if factor != 1.0:
            tally.recent = [value * factor for value in tally.recent]
        tally.step = self.step


def _row(tally: Tally) -> list[Any]:
    return [tally.counts, tally.recent, tally.stance_score_sum, tally.gated_loss_sum, tally.step]


def _tally(row: Sequence[Any]) -> Tally:
    counts, recent, stance_score_sum, gated_loss_sum, step = row
    return Tally(
        counts=list(counts),
        recent=list(recent),
        stance_score_sum=stance_score_sum,
        gated_loss_sum=gated_loss_sum,
        step=step,
    )
