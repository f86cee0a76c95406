"""The metrics of a run as one CSV file: a row per optimizer step, however often the run was resumed."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sgsd_lightning.files import atomically, keep_whole_lines

STEP = "step"
FILENAME = "metrics.csv"


class MetricsTable(Logger):
    """Writes ``metrics.csv``, whose rows count steps from 0; each is on the disk as soon as it is logged.

    Not Lightning's CSVLogger, which begins another file in another folder where a run is resumed, writes an evaluation
    into a row of its own, and rewrites a file in place where a column is new, so that a process that dies then takes
    all rows with it.

    Args:
        folder: where the file lies.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._columns: list[str] | None = None
        self._last: dict[str, str] = {}
        self._last_start = 0
        self._end = 0

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @property
    def path(self) -> Path:
        """The file; absent until something is logged."""
        return self.folder / FILENAME

    @property
    def is_written(self) -> bool:
        """Whether this process has added to the file."""
        return self._columns is not None

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add the numbers of a step to the file; to its row, if the last one is of this step.

        Raises:
            ValueError: without a step.
            OSError: where the file cannot be written.
        """
        if step is None:
            raise ValueError(f"{self.path}: metrics were logged without their step")
        if self._columns is None or not self.path.is_file() or self.path.stat().st_size != self._end:
            self._columns = self._read()
        row = {STEP: str(step), **{name: str(float(value)) for name, value in metrics.items() if name != STEP}}
        if "epoch" in row:
            row["epoch"] = str(int(float(row["epoch"])))
        continues = self._last.get(STEP) == row[STEP]
        row = {**self._last, **row} if continues else row
        if row.keys() - set(self._columns):
            self._widen(row)
        self._write(row, self._last_start if continues else None)

    def _read(self) -> list[str]:
        """Take up the file of an earlier start of the run; its columns."""
        self._last = {}
        if not self.path.is_file():
            return []
        keep_whole_lines(self.path)
        lines = self.path.read_bytes().splitlines(keepends=True)
        rows = list(csv.DictReader(io.StringIO(b"".join(lines).decode("utf-8"))))
        if rows:
            self._last = {name: value for name, value in rows[-1].items() if value}
            self._last_start = sum(map(len, lines[:-1]))
        return next(csv.reader([lines[0].decode("utf-8")])) if lines else []

    def _widen(self, row: Mapping[str, str]) -> None:
        """Write the file anew with the columns of ``row`` too, in one move."""
        assert self._columns is not None
        rows: list[dict[str, str]] = []
        if self._columns:
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        self._columns = sorted({*self._columns, *row})
        with atomically(self.path) as file:
            file.write(_line(self._columns))
            for entry in rows:
                file.write(_line(entry.get(name, "") for name in self._columns))
        if rows:
            self._last_start = self.path.stat().st_size - len(_line(rows[-1].get(name, "") for name in self._columns))

    def _write(self, row: Mapping[str, str], start: int | None) -> None:
        """Append ``row``, or put it in the place of the last one, which begins at ``start``."""
        assert self._columns is not None
        line = _line(row.get(name, "") for name in self._columns).encode("utf-8")
        with self.path.open("r+b") as file:
            self._last_start = file.seek(*((start,) if start is not None else (0, io.SEEK_END)))
            file.write(line)
            self._end = file.truncate()
        self._last = dict(row)


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
