"""Time the sizes of chunks and groups that were chosen by arithmetic, beside the choices.

    python -m benchmarks.chunk_sweep --out benchmarks/results/chunk_sweep.json

What is fastest on a device goes into `triton_shared/configs.py`, `head/cublas.py` and `divergence/cublas.py`. It needs
a GPU; with TRITON_INTERPRET=1, ``--small`` runs the same code on a CPU, where the times say nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sgsd_kernels import HeadOptions
from sgsd_kernels.dispatch import Workload, resolve_implementation
from sgsd_kernels.divergence.passes import DivergenceRows, without_targets
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.passes import HeadPasses, HeadRows
from sgsd_kernels.support.top_k import top_k_logits

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.timing import time_runs

GROUP_ROWS = (64, 32, 16, 12, 8)
CHUNKS = ((4096, 8192), (1024, 8192), (2048, 4096), (8192, 8192))
DIVERGENCE_MIB = (256, 512, 1024)
TOP_K = (8, 32, 128)
SIZES = ((9216, 1024, 151_936), (9216, 2048, 151_936), (9216, 4096, 151_936), (36_864, 4096, 151_936))
SMALL = ((20, 16, 129),)

Runs = dict[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Sweep:
    """One choice: ways to do the same work, by the setting's name, and which of them ships."""

    name: str
    runs: Runs
    shipped: str


def sweeps(rows: HeadRows, capability: int) -> list[Sweep]:
    """Every choice, for ``rows`` on a device of the compute ``capability``; needs triton, as nothing else here does."""
    from sgsd_kernels.divergence.cublas import CublasDivergence
    from sgsd_kernels.head.cublas import CublasPasses
    from sgsd_kernels.head.triton import TritonPasses
    from sgsd_kernels.triton_shared.configs import scan_config
    from sgsd_kernels.triton_shared.operands import can_use_tma

    width, dtype = rows.hidden.shape[1], rows.weight.dtype
    config = scan_config(capability, dtype, capability >= 90 and can_use_tma(rows.hidden, rows.weight))
    tiles = {str(group): dataclasses.replace(config, group_rows=group) for group in GROUP_ROWS}
    chunks = {f"{row}x{column}": CublasPasses(row, column) for row, column in CHUNKS}
    pair = DivergenceRows(
        dataclasses.replace(rows, targets=without_targets(rows.hidden)),
        dataclasses.replace(rows, targets=without_targets(rows.hidden)),
        None,
        Divergence("jsd", beta=0.5),
    )
    blocks = {f"{mib} MiB": CublasDivergence(forward_bytes=mib * 2**20) for mib in DIVERGENCE_MIB}
    shipped = CublasPasses()
    return [
        Sweep(
            "row blocks per group, scan by triton",
            {name: _scan(TritonPasses(capability, tiles=tile), rows) for name, tile in tiles.items()},
            str(config.group_rows_of(width, dtype)),
        ),
        Sweep(
            "rows x columns of a chunk, scan by cublas",
            {name: _scan(passes, rows) for name, passes in chunks.items()},
            f"{shipped.row_chunk}x{shipped.vocab_chunk}",
        ),
        Sweep(
            "logits of a block, JSD by cublas",
            {name: partial(passes.measure, pair) for name, passes in blocks.items()},
            f"{CublasDivergence().forward_bytes // 2**20} MiB",
        ),
        Sweep(
            "k, ranking by cublas",
            {str(k): partial(top_k_logits, rows, k, implementation="cublas") for k in TOP_K},
            "",
        ),
    ]


def _scan(passes: HeadPasses, rows: HeadRows) -> Callable[[], object]:
    return partial(passes.scan, rows, entropy=True)


def random_rows(num_rows: int, width: int, vocab_size: int, device: torch.device) -> HeadRows:
    """Rows of bfloat16 whose logits have a standard deviation of 4."""
    hidden = (torch.randn(num_rows, width, device=device) * (4 / width**0.5)).bfloat16()
    weight = torch.randn(vocab_size, width, device=device).bfloat16()
    return HeadRows(hidden, torch.randint(vocab_size, (num_rows,), device=device), weight, None, HeadOptions())


def measure(sizes: Sequence[tuple[int, int, int]], device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """A row per size, choice and setting; ``seconds`` for each."""
    capability = Workload.of("linear_logprob", torch.empty(0, 8, device=device)).capability or 90
    found = []
    for size in sizes:
        for sweep in sweeps(random_rows(*size, device), capability):
            for setting, spread in time_runs(sweep.runs, device, seconds).items():
                row = {"sweep": sweep.name, "size": list(size), "setting": setting}
                found.append(row | {"is_shipped": setting == sweep.shipped, **dataclasses.asdict(spread)})
    return found


def table(found: Mapping[str, Any]) -> str:
    """A markdown table, one row per choice and size; what ships is marked with a star."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in found["rows"]:
        place = (row["sweep"], "x".join(map(str, row["size"])))
        star = "*" if row["is_shipped"] else ""
        cells.setdefault(place, []).append(f"{row['setting']}{star}: {row['median']:.3g}")
    body = [[*place, ", ".join(settings)] for place, settings in cells.items()]
    return markdown_table(["choice", "rows x D x V", "setting: ms (* ships)"], body)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; 0 where it was measured, 2 where nothing can be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chunk_sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="sizes for the interpreter")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each setting; default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolve_implementation("triton", Workload.of("linear_logprob", torch.empty(0, 8, device=device)))
    except ValueError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    rows = measure(SMALL if options.small else SIZES, device, options.seconds)
    found = {**provenance("benchmarks.chunk_sweep", sys.argv[1:], device), "rows": rows}
    print(table(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
