"""Step 6: sizes of groups and chunks, and which implementation is faster, at the widths of models."""

from __future__ import annotations

import dataclasses

import torch
from sgsd_kernels.dispatch import Workload

from benchmarks.chunk_sweep import random_rows, sweeps
from benchmarks.first_contact.probes.record import Record
from benchmarks.machine import bare_product_flops_per_second
from benchmarks.timing import time_runs

SIZES = ((9216, 2048, 151_936), (9216, 4096, 151_936), (9216, 1024, 151_936), (36_864, 4096, 151_936))
SECONDS = 0.1


def measure(record: Record) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    capability = Workload.of("linear_logprob", torch.empty(0, 8, device=device)).capability or 90
    for num_rows, width, vocabulary in SIZES:
        place = f"{num_rows} x {width}"
        record.at(f"the bare product, {place}")
        rate = bare_product_flops_per_second(num_rows, width, vocabulary, torch.bfloat16, device, SECONDS)
        record.add("bare", {"size": place, "ms": 2e3 * num_rows * width * vocabulary / rate, "tflops": rate / 1e12})
        rows = random_rows(num_rows, width, vocabulary, device)
        for sweep in sweeps(rows, capability):
            for setting, run in sweep.runs.items():
                record.at(f"{sweep.name} {setting}, {place}")
                run()  # compiles
                spread = time_runs({setting: run}, device, SECONDS)[setting]
                found = {"size": place, "width": width, "sweep": sweep.name, "setting": setting}
                record.add(
                    "rows", found | {"is_shipped": setting == sweep.shipped, "ms": dataclasses.asdict(spread)["median"]}
                )
