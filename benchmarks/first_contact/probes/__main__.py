"""Run one probe: ``python -m benchmarks.first_contact.probes NAME FILE``."""

import importlib
import sys
from pathlib import Path

from benchmarks.first_contact.probes.record import Record

name, file = sys.argv[1:]
record = Record(Path(file))
importlib.import_module(f"benchmarks.first_contact.probes.{name}").measure(record)
record.save()
