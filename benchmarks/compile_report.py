"""Compile every kernel ahead of time, without a GPU, and report what the machine code needs.

    python -m benchmarks.compile_report --json benchmarks/results/compile_report/3.7.1.json

It is the installed Triton that compiles. Another one is unpacked beside it and comes first on the path:

    make compile-report TRITON=3.6.0

Exits with 1, naming the kernel, where one spills beyond `compile_budget.json`, needs more shared memory than the device
has, lacks the instructions that it is there for, holds some that none may hold, or does not compile.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.compile_tables import report_table
from benchmarks.compiled_kernel import (
    SHARED_MEMORY_LIMIT,
    CompiledKernel,
    FailedKernel,
    compile_specimen,
    specimens_by_name,
)

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent / "kernels"
BUDGET = HERE / "compile_budget.json"
CATALOGUE = "sgsd_kernels.triton_shared.catalogue"
NUM_WORKERS = 2

Outcome = CompiledKernel | FailedKernel
Budget = Mapping[int, Mapping[str, int]]


def compile_all(catalogue: str, capabilities: Sequence[int], only: str = "") -> list[Outcome]:
    """Compile the specimens whose name holds ``only`` for each of ``capabilities``, in worker processes.

    Raises:
        ValueError: no specimen has such a name.
    """
    wanted = [
        (capability, name)
        for capability in capabilities
        for name in specimens_by_name(catalogue, capability)
        if only in name
    ]
    if not wanted:
        raise ValueError(f"--only {only} is in no specimen's name; run without it to see them all")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(NUM_WORKERS, len(wanted)), mp_context=spawn) as pool:
        jobs = [pool.submit(compile_specimen, catalogue, capability, name) for capability, name in wanted]
        return [job.result() for job in jobs]


def read_budget(path: Path, triton_version: str) -> dict[int, dict[str, int]]:
    """Bytes of local memory that are put up with under a version of Triton, by compute capability and specimen.

    A version without a budget of its own has none: every spill is a fault.

    Raises:
        ValueError: a budget that is not a number of bytes.
    """
    of_version = json.loads(path.read_text()).get(triton_version, {})
    budget = {int(capability): dict(kernels) for capability, kernels in of_version.items()}
    for kernels in budget.values():
        for name, limit in kernels.items():
            if not isinstance(limit, int) or limit < 0:
                raise ValueError(f"{path.name}: the budget of {name} is {limit!r}; give bytes per thread, 0 or more")
    return budget


def find_faults(outcomes: Sequence[Outcome], budget: Budget) -> list[str]:
    """What is wrong with any of the kernels, a sentence each."""
    return [
        fault
        for outcome in outcomes
        for fault in outcome.faults(budget.get(outcome.capability, {}).get(outcome.name, 0))
    ]


def stale_budgets(outcomes: Sequence[Outcome], budget: Budget) -> list[str]:
    """Budgets of kernels that are not there (any more), a sentence each; ``outcomes`` are those of all kernels."""
    known = {(outcome.capability, outcome.name) for outcome in outcomes}
    compiled = {outcome.capability for outcome in outcomes}
    return [
        f"the budget names {name} for sm_{capability}, and there is no such kernel"
        for capability, kernels in budget.items()
        if capability in compiled
        for name in kernels
        if (capability, name) not in known
    ]


def _triton_version() -> str:
    import triton

    return str(triton.__version__)


def _as_json(outcomes: Sequence[Outcome], faults: Sequence[str]) -> dict[str, Any]:
    import triton

    return {
        "command": "python -m benchmarks.compile_report",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "triton": triton.__version__,
            "ptxas": triton.knobs.nvidia.ptxas.version,
            "ptxas-blackwell": triton.knobs.nvidia.ptxas_blackwell.version,
        },
        "faults": list(faults),
        "kernels": [dataclasses.asdict(outcome) for outcome in outcomes],
    }


def _one_kernel_per_line(report: Mapping[str, Any]) -> str:
    kernels = ",\n".join(f"  {json.dumps(kernel)}" for kernel in report["kernels"])
    head = json.dumps({**report, "kernels": []}, indent=1).removesuffix("[]\n}")
    return f"{head}[\n{kernels}\n ]\n}}\n"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--capability",
        type=int,
        action="append",
        choices=sorted(SHARED_MEMORY_LIMIT),
        help="compute capability; may be repeated (default: all)",
    )
    parser.add_argument("--only", default="", metavar="NAME", help="kernels whose name holds NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--budget", type=Path, default=BUDGET, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--catalogue", default=CATALOGUE, metavar="MODULE", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the report; 0 where every kernel is as it should be, 1 where one is not, 2 where it cannot be run."""
    options = _arguments(arguments)
    if os.environ.get("TRITON_INTERPRET"):
        print("TRITON_INTERPRET is set, so there is nothing to compile; unset it.", file=sys.stderr)
        return 2
    if str(KERNELS) not in sys.path:
        sys.path.insert(0, str(KERNELS))
    try:
        budget = read_budget(options.budget, _triton_version())
        outcomes = compile_all(options.catalogue, options.capability or sorted(SHARED_MEMORY_LIMIT), options.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    faults = find_faults(outcomes, budget)
    if not options.only:
        faults += stale_budgets(outcomes, budget)
    report = _as_json(outcomes, faults)
    print(report_table(report["kernels"]))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(_one_kernel_per_line(report))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
