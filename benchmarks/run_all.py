"""All kernel benchmarks in one call, each in a process of its own, within one budget of time.

    python -m benchmarks.run_all [--small] [--budget-seconds 540] --out benchmarks/results/kernels

A process of its own, because an illegal memory access in one peer makes every later CUDA call of its process fail. What
was measured before is on disk by then. Options that are not named here go to the benchmarks as they are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command_line import DEFAULT_OUT

MODULES = (
    "benchmarks.gated_head",
    "benchmarks.linear_logprob",
    "benchmarks.linear_divergence",
    "benchmarks.local_support",
)
"""In the order of what their numbers are worth, should the time not suffice."""
GRACE_SECONDS = 30.0
"""What a benchmark may need beyond its share to finish the provider that it is at."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every benchmark; each gets an even share of the time that is left.

    Returns:
        1 where a benchmark failed or was stopped, 0 otherwise.
    """
    options, rest = _parser().parse_known_args(arguments)
    deadline = time.monotonic() + options.budget_seconds
    status = 0
    for index, module in enumerate(MODULES):
        share = max(0.0, deadline - time.monotonic()) / (len(MODULES) - index)
        command = [sys.executable, "-m", module, "--out", str(options.out), *rest]
        if share < float("inf"):
            command += ["--budget-seconds", f"{share:.0f}"]
        print(f"# {module}", flush=True)
        try:
            done = subprocess.run(command, timeout=None if share == float("inf") else share + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{module} was stopped {GRACE_SECONDS:.0f} s after its share of the budget; what it saved stays")
            status = 1
        else:
            status |= int(done.returncode != 0)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget-seconds", type=float, default=float("inf"), help="of all benchmarks together")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the result files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
