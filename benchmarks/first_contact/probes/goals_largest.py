"""Step 9b: the goals at the largest size, where the authors' scheme is out of memory."""

from __future__ import annotations

from benchmarks.cases import FORWARD, FROZEN
from benchmarks.first_contact.probes.goals import measure_goals
from benchmarks.first_contact.probes.record import Record
from benchmarks.goals import LARGEST


def measure(record: Record) -> None:
    measure_goals(record, LARGEST, (FORWARD, FROZEN))
