"""The metrics of a run in one file, whatever happens to the run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from sgsd_lightning.training.loggers import default_loggers
from sgsd_lightning.training.metrics_table import MetricsTable


def rows(table: MetricsTable) -> list[dict[str, str]]:
    with table.path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_step_is_a_row_and_an_evaluation_stands_in_it(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path)
    table.log_metrics({"loss": torch.tensor(0.5), "epoch": 0}, step=0)
    table.log_metrics({"loss": 0.25}, step=1)
    table.log_metrics({"val/avg@k": 0.75, "epoch": 0}, step=1)  # a column that the file did not have
    table.log_metrics({"loss": 0.125}, step=2)
    table.log_metrics({"val/avg@k": 1.0}, step=2)  # a longer row in the place of the last one
    expected = [
        {"step": "0", "loss": "0.5", "epoch": "0"},
        {"step": "1", "loss": "0.25", "val/avg@k": "0.75", "epoch": "0"},
        {"step": "2", "loss": "0.125", "val/avg@k": "1.0"},
    ]
    assert rows(table) == expected


def test_a_resume_appends_to_the_same_file(tmp_path: Path) -> None:
    first = MetricsTable(tmp_path)
    for step in range(3):
        first.log_metrics({"loss": float(step)}, step=step)
    with first.path.open("a") as file:
        file.write("3,9")  # the process died here
    second = MetricsTable(tmp_path)
    assert not second.is_written
    second.log_metrics({"val": 0.5}, step=2)  # the evaluation that had not ended
    second.log_metrics({"loss": 3.0, "new": 1.0}, step=3)
    assert second.is_written
    assert [row["step"] for row in rows(second)] == ["0", "1", "2", "3"]
    assert rows(second)[2:] == [{"step": "2", "loss": "2.0", "val": "0.5"}, {"step": "3", "loss": "3.0", "new": "1.0"}]


def test_rows_that_another_took_out_stay_out(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path)
    for step in range(3):
        table.log_metrics({"loss": 1.0}, step=step)
    table.path.write_text("".join(table.path.read_text().splitlines(keepends=True)[:2]))
    table.log_metrics({"loss": 2.0}, step=1)
    assert rows(table) == [{"step": "0", "loss": "1.0"}, {"step": "1", "loss": "2.0"}]


def test_numbers_without_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.csv: metrics were logged without their step"):
        MetricsTable(tmp_path).log_metrics({"loss": 1.0})


@pytest.mark.parametrize(
    ("known", "taken"), [((), "version_0"), (("version_2", "version_10", "version_x"), "version_10")]
)
def test_a_run_of_an_earlier_edition_continues_its_newest_table(
    known: tuple[str, ...], taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in known:
        (tmp_path / "metrics" / name).mkdir(parents=True)
    table = default_loggers(tmp_path)[0]
    assert isinstance(table, MetricsTable)
    assert table.folder == tmp_path / "metrics" / taken
