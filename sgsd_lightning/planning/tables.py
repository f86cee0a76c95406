"""Writes the tables of docs/memory.md: ``python -m sgsd_lightning.planning.tables [--write docs/memory.md]``."""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path

from sgsd_lightning.planning.memory import fits, plan_memory
from sgsd_lightning.planning.model_shape import ModelShape, qwen3_config, shape_from_config
from sgsd_lightning.planning.report import GIB, TextTable, flops_table, gib, memory_table
from sgsd_lightning.planning.run_settings import RunSettings, Strategy
from sgsd_lightning.policy import LoraSettings

MODELS = ("Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B", "Qwen3-32B")
CARDS_GIB = (24, 80, 141)
STRATEGIES: tuple[tuple[Strategy, int], ...] = (("single", 1), ("ddp", 8), ("fsdp2", 8))
BEGIN, END = "<!-- tables: begin (python -m sgsd_lightning.planning.tables) -->", "<!-- tables: end -->"


def lora_run(model: str, strategy: Strategy, num_devices: int) -> RunSettings:
    """LoRA of rank 64 on weights in bfloat16."""
    lora = LoraSettings()
    return RunSettings(
        shape=_shape(model).with_adapters(lora.rank, lora.target_modules),
        dtype="bfloat16",
        gradient_checkpointing=True,
        strategy=strategy,
        num_devices=num_devices,
    )


def full_run(model: str, strategy: Strategy, num_devices: int) -> RunSettings:
    """All weights in float32, products in bfloat16: by autocast, under FSDP2 by the dtype of gathered weights."""
    is_sharded = strategy == "fsdp2"
    return RunSettings(
        shape=_shape(model),
        dtype="float32",
        autocast_dtype=None if is_sharded else "bfloat16",
        param_dtype="bfloat16" if is_sharded else None,
        gradient_checkpointing=True,
        strategy=strategy,
        num_devices=num_devices,
    )


def fitting_table() -> TextTable:
    """Peaks by strategy, and the first strategy that fits each card."""
    rows = []
    for model in MODELS:
        for name, build in (("LoRA", lora_run), ("full", full_run)):
            runs = {strategy: build(model, strategy, count) for strategy, count in STRATEGIES}
            peaks = {strategy: plan_memory(run).training_peak for strategy, run in runs.items()}
            rows.append(
                (
                    f"{model}, {name}",
                    *(f"{peak / GIB:.1f}" for peak in peaks.values()),
                    *(_first_fitting(peaks, card) for card in CARDS_GIB),
                )
            )
    return TextTable(
        title="GiB on each device at the peak of training, and which strategy fits which card",
        columns=("model", "single", "ddp x 8", "fsdp2 x 8", *(f"{card} GB card" for card in CARDS_GIB)),
        rows=tuple(rows),
    )


def teacher_table() -> TextTable:
    """What a teacher with weights of its own adds."""
    rows = []
    for model in MODELS:
        for name, build in (("LoRA", lora_run), ("full", full_run)):
            added = []
            for strategy, count in (STRATEGIES[0], STRATEGIES[2]):
                live = build(model, strategy, count)
                for teacher in ("frozen", "ema"):
                    own = plan_memory(replace(live, teacher=teacher)).training_peak
                    added.append(gib(own - plan_memory(live).training_peak))
            rows.append((f"{model}, {name}", *added))
    return TextTable(
        title="GiB that teacher weights other than the student's add at the peak (periodic: as ema)",
        columns=("model", "frozen, single", "ema, single", "frozen, fsdp2 x 8", "ema, fsdp2 x 8"),
        rows=tuple(rows),
    )


def tables() -> str:
    """All of them as Markdown."""
    examples = (
        ("Qwen3-1.7B, LoRA, one device", lora_run("Qwen3-1.7B", "single", 1)),
        ("Qwen3-8B, LoRA, one device", lora_run("Qwen3-8B", "single", 1)),
        ("Qwen3-8B, full, fsdp2 on 8", full_run("Qwen3-8B", "fsdp2", 8)),
    )
    parts = [fitting_table(), teacher_table()]
    for name, run in examples:
        parts.append(replace(memory_table(plan_memory(run)), title=f"{name}: GiB on each device, by phase"))
    name, run = examples[1]
    parts.append(replace(flops_table(run), title=f"{name}: teraflop of one rollout with its teachers"))
    return "\n\n".join(table.markdown() for table in parts)


def write_tables_into(text: str) -> str:
    """``text`` with what is between the marks replaced by the tables.

    Raises:
        ValueError: where the marks are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the file to write tables into needs the marks {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


@functools.cache
def _shape(model: str) -> ModelShape:
    config = qwen3_config(model)
    assert config is not None
    return shape_from_config(config)


def _first_fitting(peaks: dict[Strategy, int], card_gib: float) -> str:
    """Data parallelism where one device suffices: what a device holds is then about the same on any number of them."""
    for strategy, count in STRATEGIES:
        if strategy in ("single", "fsdp2") and fits(peaks[strategy], card_gib * GIB):
            if strategy == "fsdp2":
                return f"fsdp2 x {count}"
            return "single, ddp" if fits(peaks["ddp"], card_gib * GIB) else "single"
    return "none"


def main() -> None:
    """Print the tables, or write them into a file between its marks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", type=Path, default=None, help="such as docs/memory.md")
    path = parser.parse_args().write
    if path is None:
        print(tables())
    else:
        path.write_text(write_tables_into(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
