"""The committed tables are what the code writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgsd_lightning.planning.memory import fits, plan_memory
from sgsd_lightning.planning.report import GIB
from sgsd_lightning.planning.tables import BEGIN, END, fitting_table, lora_run, write_tables_into

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "memory.md"


def test_the_committed_tables_are_what_the_code_writes() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert write_tables_into(text) == text, "run: python -m sgsd_lightning.planning.tables --write docs/memory.md"


def test_the_document_says_what_was_not_measured() -> None:
    assert "not checked against measurement on a GPU" in DOCUMENT.read_text(encoding="utf-8")


def test_what_the_document_says_of_the_tables_holds() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    tight = replace(lora_run("Qwen3-8B", "ddp", 8), teacher_tokens_per_forward=8192)
    peak = plan_memory(tight).training_peak
    assert f"at 8192 Qwen3-8B with LoRA under ddp comes to {peak / GIB:.1f} GiB and fits a card of 24 GB" in text
    assert fits(peak, 24 * GIB)
    assert "61 GiB for 32B, so that eight cards of 80 GB do not do and sixteen do" in text
    assert round(2 * lora_run("Qwen3-32B", "single", 1).shape.num_parameters / GIB) == 61
    peaks = {count: plan_memory(lora_run("Qwen3-32B", "fsdp2", count)).training_peak for count in (8, 16)}
    assert {count: fits(peak, 80 * GIB) for count, peak in peaks.items()} == {8: False, 16: True}
    by_layer = plan_memory(replace(lora_run("Qwen3-32B", "fsdp2", 8), gather_weights=False)).training_peak
    assert f"falls from {peaks[8] / GIB:.1f} to {by_layer / GIB:.1f} GiB" in text


def test_every_model_and_training_has_a_row() -> None:
    table = fitting_table()
    assert [row[0] for row in table.rows] == [
        f"Qwen3-{size}, {training}" for size in ("1.7B", "4B", "8B", "32B") for training in ("LoRA", "full")
    ]
    # a larger card never fits less
    order = ("none", "fsdp2 x 8", "single", "single, ddp")
    for row in table.rows:
        ranks = [order.index(cell) for cell in row[4:]]
        assert ranks == sorted(ranks)


def test_a_file_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the marks"):
        write_tables_into(f"{BEGIN} and no end")
    assert write_tables_into(f"a{BEGIN}old{END}b").startswith(f"a{BEGIN}\n\n**")
