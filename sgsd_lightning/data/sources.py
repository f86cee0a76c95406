"""Where problems come from: JSON Lines files, and anything that the `datasets` library reads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sgsd_lightning.files import locate
from sgsd_lightning.texts.damage import strip_spaces, unreadable_character
from sgsd_lightning.texts.strict_json import read_json_lines, shorten
from sgsd_lightning.types import Problem


class ProblemSource(ABC):
    """A finite, ordered list of problems."""

    @abstractmethod
    def load(self) -> list[Problem]:
        """Read and check every problem; the same list at each call."""

    def refuse_if_same(self, trained: ProblemSource) -> None:
        """Raise ValueError if these, which evaluate, are made as those are that are trained on. By default nothing."""


@dataclass(frozen=True, kw_only=True)
class ProblemFields:
    """Which field of a record holds what. Dots go into nested records and lists: ``prompt.0.content``."""

    problem: str = "problem"
    answer: str = "answer"
    problem_id: str = "id"
    """Where a record lacks it, the record's place in the source serves."""
    solution: str = "solution"
    """Optional in every record."""
    shards: str = "shards"
    """Optional: a list of texts, the same question in parts."""


class JsonlProblems(ProblemSource):
    """Problems from a JSON Lines file, one object a line.

    Args:
        path: the file, in UTF-8; ``package://some.package/file.jsonl`` names one that an installed package ships.
        fields: the names of the fields.
        limit: take only the first so many; None takes all.
    """

    def __init__(self, path: str, fields: ProblemFields | None = None, limit: int | None = None) -> None:
        self.path = path
        self.fields = fields or ProblemFields()
        self.limit = limit

    def load(self) -> list[Problem]:
        """Read the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: naming the file, the line and the field of the first thing that is wrong.
        """
        path = locate(self.path, "problem file")
        problems = [
            problem_from_record(record, self.fields, where=f"{path}:{number}", default_id=f"{path.stem}-{number}")
            for number, record in islice(read_json_lines(path), self.limit)
        ]
        return check_problems(problems, str(path))


class DatasetProblems(ProblemSource):
    """Problems from the Hugging Face hub or from local parquet, CSV or Arrow files, read by `datasets`.

    Args:
        path: a data set's name on the hub (``BytedTsinghua-SIA/DAPO-Math-17k``), or a format such as ``parquet``
            together with ``data_files``.
        name: the data set's configuration.
        split: the split to read.
        data_files: files for a format.
        fields: the names of the fields.
        drop_prefix: text that is removed from the start of every problem, where a source puts instructions there.
        drop_suffix: the same at the end.
        deduplicate: keep only the first of several records with the same problem text.
        limit: take only the first so many; None takes all.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: str = "train",
        data_files: str | list[str] | None = None,
        fields: ProblemFields | None = None,
        drop_prefix: str = "",
        drop_suffix: str = "",
        deduplicate: bool = False,
        limit: int | None = None,
    ) -> None:
        self.path = path
        self.name = name
        self.split = split
        self.data_files = data_files
        self.fields = fields or ProblemFields()
        self.drop_prefix = drop_prefix
        self.drop_suffix = drop_suffix
        self.deduplicate = deduplicate
        self.limit = limit

    def load(self) -> list[Problem]:
        """Read the data set; needs the extra ``data``.

        Raises:
            ImportError: if `datasets` is not installed.
            OSError: if it finds no such data set, or cannot reach the hub.
            ValueError: naming the data set, the row and the field of the first thing that is wrong.
        """
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                f"reading {self.path!r} needs the package datasets: pip install 'sgsd-lightning[data]'"
            ) from error
        where = f"{self.data_files or self.path}[{self.split}]"
        with _one_sentence(where):
            dataset = datasets.load_dataset(self.path, self.name, split=self.split, data_files=self.data_files)
        stem = Path(self.data_files).stem if isinstance(self.data_files, str) else "row"
        problems: dict[str, Problem] = {}
        for number, record in self._records(dataset):
            if self.limit is not None and len(problems) >= self.limit:
                break
            problem = problem_from_record(
                record,
                self.fields,
                where=f"{where} row {number}",
                default_id=f"{stem}-{number}",
                trim=self._trim,
            )
            problems.setdefault(problem.text if self.deduplicate else str(number), problem)
        return check_problems(list(problems.values()), where)

    def _records(self, dataset: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        """Row number and content; where repeats are not wanted, without the exact ones.

        By batches and without repeats the hundredfold rows of DAPO take 20 seconds, one by one 160.
        """
        seen: set[str] = set()
        number = 0
        batches = dataset.iter(batch_size=1000)
        while True:
            with _one_sentence(f"{self.data_files or self.path}[{self.split}] after row {number}"):
                batch = next(batches, None)
            if batch is None:
                return
            for row in zip(*batch.values(), strict=True):
                record = dict(zip(batch, row, strict=True))
                text = str(_lookup(record, self.fields.problem)) if self.deduplicate else str(number)
                if text not in seen:
                    seen.add(text)
                    yield number, record
                number += 1

    def _trim(self, text: str) -> str:
        return strip_spaces(text.removeprefix(self.drop_prefix).removesuffix(self.drop_suffix))


def problem_from_record(
    record: Any,
    fields: ProblemFields,
    *,
    where: str,
    default_id: str,
    trim: Callable[[str], str] = strip_spaces,
) -> Problem:
    """Turn one record into a Problem.

    Raises:
        ValueError: naming ``where`` and the field that is missing, empty or of the wrong type.
    """
    if not isinstance(record, Mapping):
        raise ValueError(
            f"{where}: a problem must be a JSON object; got {type(record).__name__}. One line must hold one problem "
            "(jq -c '.[]' makes lines of an array)"
        )
    return Problem(
        problem_id=_problem_id(record, fields.problem_id, where) or default_id,
        text=trim(_text(record, fields.problem, "problem", where)),
        answer=strip_spaces(_text(record, fields.answer, "answer", where)),
        solution=_solution(record, fields.solution, where),
        shards=_shards(record, fields.shards, where),
        metadata=_other_columns(record, fields),
    )


def _problem_id(record: Mapping[str, Any], field: str, where: str) -> str | None:
    value = _optional(record, field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError(f"{where}: the field {field!r} (the id) must be a text or a number; got {shorten(value)}")
    return _readable(str(value), field, "id", where)


def _solution(record: Mapping[str, Any], field: str, where: str) -> str | None:
    value = _optional(record, field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: the field {field!r} (the solution) must be a text or null; got {shorten(value)}. "
            "Name the right one under fields.solution"
        )
    return _readable(value, field, "solution", where)


def _shards(record: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    value = _optional(record, field)
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
        raise ValueError(f"{where}: the field {field!r} (the shards) must be a list of texts; got {shorten(value)}")
    return tuple(_readable(part, field, "shards", where) for part in value)


def _other_columns(record: Mapping[str, Any], fields: ProblemFields) -> dict[str, Any]:
    """What a record holds beside the problem, for reward functions that read columns of the data set."""
    used = (fields.problem, fields.answer, fields.problem_id, fields.solution, fields.shards)
    return {str(name): value for name, value in record.items() if name not in used}


def check_problems(problems: list[Problem], where: str) -> list[Problem]:
    """Refuse an empty list and repeated ids (rollout seeds and tables are keyed by id)."""
    if not problems:
        raise ValueError(f"{where} holds no problem")
    seen: set[str] = set()
    for problem in problems:
        if problem.problem_id in seen:
            raise ValueError(f"{where}: the problem id {problem.problem_id!r} occurs twice; ids must be unique")
        seen.add(problem.problem_id)
    return problems


def _text(record: Mapping[str, Any], field: str, role: str, where: str) -> str:
    value = _lookup(record, field)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{where}: the field {field!r} (the {role}) is {value}, which is no {role}; correct or remove it"
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        raise ValueError(
            f"{where}: the field {field!r} (the {role}) is missing; found {sorted(map(str, record))}. "
            f"Name the right one under fields.{role}"
        )
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where}: the field {field!r} (the {role}) must be a non-empty text; got {shorten(value)}. "
            f"Correct it, or name the right one under fields.{role}"
        )
    return _readable(value, field, role, where)


def _readable(text: str, field: str, role: str, where: str) -> str:
    """The text, if a tokenizer and a file can take it."""
    found = unreadable_character(text)
    if found is not None:
        raise ValueError(f"{where}: the field {field!r} (the {role}) holds {found}: {shorten(text)}; remove it")
    return text


def _optional(record: Mapping[str, Any], field: str) -> Any:
    """What a record has under an optional field; the NaN that tables hold for nothing is None."""
    value = _lookup(record, field)
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def _one_sentence(where: str) -> Iterator[None]:
    """Errors of `datasets`, which are many and long, by their first line, or by their cause where that says more."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{lines[0]} ({type(cause).__name__} of the package datasets, reading {where})") from error


def _lookup(record: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(record, Mapping):
            record = record.get(key)
        elif isinstance(record, Sequence) and not isinstance(record, str) and key.isdigit() and int(key) < len(record):
            record = record[int(key)]
        else:
            return None
    return record
