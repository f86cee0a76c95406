"""A pytest run whose tests are counted while it goes on, so that a run that is ended has counted."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Sequence

from sgsd_kernels.dispatch import IMPLEMENTATION_VARIABLE

from benchmarks.first_contact.probes.record import Record
from benchmarks.first_contact.probes.tools import python_module

LINE = re.compile(r"^(?P<test>\S+::.*?) (?P<outcome>PASSED|FAILED|SKIPPED|ERROR)\b")
UNCOLLECTED = re.compile(r"^ERROR (?P<file>\S+)")
OPTIONS = ("-v", "-m", "not slow", "--tb=line", "--no-header", "-p", "no:cacheprovider")
SAVE_EVERY = 25
MOST_NAMES = 20


def run_tests(record: Record, *arguments: str) -> None:
    """Run pytest with ``arguments``; ``record`` has how many passed, failed and were skipped, and which failed."""
    has_pytest = importlib.util.find_spec("pytest") is not None
    record.put(has_pytest=has_pytest)
    if not has_pytest:
        return
    record.at("collecting tests")
    os.environ.pop(IMPLEMENTATION_VARIABLE, None)  # tests choose for themselves, and some test what is chosen
    command = python_module("pytest", *OPTIONS, *arguments)
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
            if len(lines) % SAVE_EVERY == 0:
                record.put(**counts(lines))
    record.put(**counts(lines), pytest_status=process.returncode)


def counts(lines: Sequence[str]) -> dict[str, object]:
    """Numbers of tests by outcome, the first that failed, and the last one seen, of what ``pytest -v`` prints."""
    seen = [match for line in lines if (match := LINE.match(line))]
    outcomes = [match["outcome"] for match in seen]
    failed = [match["test"] for match in seen if match["outcome"] in ("FAILED", "ERROR")]
    # a file that cannot be imported has a line in the summary alone
    failed += [match["file"] for line in lines if (match := UNCOLLECTED.match(line)) and "::" not in match["file"]]
    return {
        "num_passed": outcomes.count("PASSED"),
        "num_failed": len(failed),
        "num_skipped": outcomes.count("SKIPPED"),
        "failed": failed[:MOST_NAMES],
        **({"at": seen[-1]["test"]} if seen else {}),
    }
