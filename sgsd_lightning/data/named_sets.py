"""Problem sets by name: where each lies on the Hugging Face hub, and how its records are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sgsd_lightning.data.sources import DatasetProblems, JsonlProblems, ProblemFields, ProblemSource
from sgsd_lightning.types import Problem

FILE_FORMATS = {".jsonl": "json", ".parquet": "parquet"}


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """A data set of the hub and the way to read it."""

    repository: str
    split: str
    configuration: str | None = None
    """None is the repository's default."""
    fields: ProblemFields = field(default_factory=ProblemFields)
    drop_prefix: str = ""
    drop_suffix: str = ""
    deduplicate: bool = False
    num_problems: int | None = None
    """Of a benchmark, whose scores are compared; None where the number is nobody's yardstick."""


NAMED_SETS: Mapping[str, NamedSet] = MappingProxyType(
    {
        "aime24": NamedSet(repository="HuggingFaceH4/aime_2024", split="train", num_problems=30),
        "aime25": NamedSet(repository="math-ai/aime25", split="test", num_problems=30),
        "hmmt25": NamedSet(
            repository="MathArena/hmmt_feb_2025",
            split="train",
            fields=ProblemFields(problem_id="problem_idx"),
            num_problems=30,
        ),
        "math500": NamedSet(
            repository="HuggingFaceH4/MATH-500",
            split="test",
            fields=ProblemFields(problem_id="unique_id"),
            num_problems=500,
        ),
        "amc23": NamedSet(
            repository="math-ai/amc23", split="test", fields=ProblemFields(problem="question"), num_problems=40
        ),
        # 17,917 rows a hundred times over, some of them with the same problem
        "dapo_math_17k": NamedSet(
            repository="BytedTsinghua-SIA/DAPO-Math-17k",
            split="train",
            fields=ProblemFields(
                problem="prompt.0.content", answer="reward_model.ground_truth", problem_id="extra_info.index"
            ),
            drop_prefix=(
                "Solve the following math problem step by step. The last line of your response should be of the form "
                "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
            ),
            drop_suffix='\n\nRemember to put your answer on its own line after "Answer:".',
            deduplicate=True,
        ),
        # what OPSD (arXiv 2601.18734) trains on; its solutions are long traces of another model
        "openthoughts": NamedSet(
            repository="siyanzhao/Openthoughts_math_30k_opsd", split="train", fields=ProblemFields(answer="Answer")
        ),
    }
)


class NamedProblems(ProblemSource):
    """A problem set of `NAMED_SETS`, from the hub or from a copy of it; needs the extra ``data``.

    Problem ids begin with the name, so that several sets can be evaluated together.

    Args:
        name: one of `NAMED_SETS`.
        path: a local copy, with the hub's fields: a folder laid out as the hub's repository, or one .jsonl or .parquet
            file. None asks the hub.
        limit: take only the first so many; None takes all.

    Raises:
        ValueError: an unknown name, listing the known ones.
    """

    def __init__(self, name: str, path: str | None = None, limit: int | None = None) -> None:
        if name not in NAMED_SETS:
            raise ValueError(f"there is no problem set named {name!r}; there are {', '.join(NAMED_SETS)}")
        self.name = name
        self.path = path
        self.limit = limit

    def load(self) -> list[Problem]:
        """Read the set.

        Raises:
            ImportError: if `datasets` is not installed.
            OSError: if ``path`` does not exist or holds no data.
            ConnectionError: if the hub cannot be reached and the set has not been downloaded before.
            ValueError: a record that does not read, or, without a limit, another number of problems than the name
                stands for. That is an error and no warning: a score is quoted under the set's name, not with its log.
        """
        known = NAMED_SETS[self.name]
        where = self.path or known.repository
        source = self._source(known)
        try:
            problems = source.load()
        except ValueError as error:
            raise ValueError(f"the problem set {self.name!r}, read from {where}: {error}") from error
        except OSError as error:
            if self.path is not None:
                raise OSError(f"the problem set {self.name!r}, read from {where}: {_first_line(error)}") from error
            raise ConnectionError(
                f"the problem set {self.name!r} could not be read from {known.repository} on the Hugging Face hub "
                f"({_first_line(error)}); download it elsewhere and name the copy as path"
            ) from error
        if self.limit is None and known.num_problems not in (None, len(problems)):
            raise ValueError(
                f"the problem set {self.name!r} must hold {known.num_problems} problems; {where} has {len(problems)}. "
                "Scores on it would not compare with others': set a limit, or read it with DatasetProblems"
            )
        return [replace(problem, problem_id=f"{self.name}-{problem.problem_id}") for problem in problems]

    def _source(self, known: NamedSet) -> DatasetProblems:
        reading: dict[str, Any] = {
            "fields": known.fields,
            "drop_prefix": known.drop_prefix,
            "drop_suffix": known.drop_suffix,
            "deduplicate": known.deduplicate,
            "limit": self.limit,
        }
        if self.path is None:
            return DatasetProblems(known.repository, known.configuration, known.split, **reading)
        path = Path(self.path)
        if not path.exists():
            raise FileNotFoundError(f"the path {path} of the problem set {self.name!r} does not exist")
        if path.is_dir():
            return DatasetProblems(str(path), known.configuration, known.split, **reading)
        if path.suffix not in FILE_FORMATS:
            raise ValueError(
                f"the path of the problem set {self.name!r} must be a folder, or end with one of "
                f"{', '.join(FILE_FORMATS)}; got {path}"
            )
        return DatasetProblems(FILE_FORMATS[path.suffix], data_files=str(path), **reading)


def load_problem_set(value: str) -> list[Problem]:
    """One item of ``--problems``: a .jsonl or .parquet file with our own field names, or a name of `NAMED_SETS`.

    Raises:
        FileNotFoundError: a file that does not exist.
        ValueError: what is neither file nor name; a file or a set that does not read.
        ImportError, ConnectionError: as `NamedProblems.load`.
    """
    suffix = Path(value).suffix
    if value in NAMED_SETS:
        return NamedProblems(value).load()
    if suffix == ".jsonl":
        return JsonlProblems(value).load()
    if suffix == ".parquet":
        if not Path(value).is_file():
            raise FileNotFoundError(f"--problems {value}: the file does not exist (looked in {Path.cwd()})")
        return DatasetProblems("parquet", data_files=value).load()
    raise ValueError(
        f"--problems {value}: neither a .jsonl or .parquet file nor a problem set; there are {', '.join(NAMED_SETS)}"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
