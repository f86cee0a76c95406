"""What the benchmarks' command lines share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.cases import MODES, Size
from benchmarks.harness import Row, Settings, Workload, measure
from benchmarks.machine import provenance
from benchmarks.memory import MEASURES
from benchmarks.peers import ours
from benchmarks.plot import draw
from benchmarks.results import save, summary

DEFAULT_OUT = Path("benchmarks/results/kernels")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def parser(description: str) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    options.add_argument("--small", action="store_true", help="sizes for a CPU; the default where there is no CUDA")
    options.add_argument("--sizes", nargs="+", default=[], metavar="TxKxD[xV]", help="these sizes instead")
    options.add_argument("--modes", nargs="+", default=[], metavar="PART", help="modes whose name holds one of these")
    options.add_argument(
        "--providers", nargs="+", default=[], metavar="PART", help="providers whose name holds one of these"
    )
    options.add_argument("--seconds", type=float, help="about how long each provider is timed per case")
    options.add_argument("--budget-seconds", type=float, default=float("inf"), help="what would begin later is skipped")
    options.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the JSON, markdown and plot")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    """The harness's settings from parsed options."""
    device = torch.device(options.device)
    seconds = options.seconds or (0.5 if device.type == "cuda" else 0.1)
    return Settings(
        device=device,
        dtype=DTYPES[options.dtype],
        seconds=seconds,
        deadline=time.monotonic() + options.budget_seconds,
        only=tuple(options.providers),
        modes=tuple(mode for mode in MODES if any(part in mode for part in options.modes)),
    )


def sizes_of(options: argparse.Namespace, workload: Workload) -> list[Size]:
    """The sizes that were asked for.

    Raises:
        ValueError: a size that cannot be read.
    """
    if options.sizes:
        return [Size.parse(text) for text in options.sizes]
    is_small = options.small or torch.device(options.device).type != "cuda"
    return workload.small_sizes() if is_small else workload.sizes()


def main(workloads: Sequence[Workload], module: str, arguments: Sequence[str] | None = None) -> int:
    """Measure ``workloads`` one after the other; results are saved after every case, so that none is lost.

    Returns:
        The exit status: 1 where one of this repository's implementations was wrong or failed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(f"Benchmark: {', '.join(workload.name for workload in workloads)}").parse_args(arguments)
    settings = settings_of(options)
    torch.set_float32_matmul_precision("highest")
    is_sound = True
    for workload in workloads:
        header = {
            **provenance(module, arguments, settings.device),
            "kernel": workload.name,
            "dtype": options.dtype,
            "auto": ours.chosen_by_auto(settings.device, settings.dtype),
            "workspace": MEASURES.get(settings.device.type, "not measured"),
        }
        rows: list[Row] = []
        for case in measure(workload, sizes_of(options, workload), settings):
            rows += case
            save(options.out, header, rows)
            print(summary(case), flush=True)
        draw({**header, "rows": [row.as_dict() for row in rows]}, options.out / f"{workload.name}.png")
        is_sound &= not any(row.provider.startswith("sgsd") and row.status in ("wrong", "failed") for row in rows)
    return 0 if is_sound else 1
