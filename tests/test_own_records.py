"""Files of records that commands write and read again: memories, samples and progress, damaged on their way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sgsd_lightning.evaluation.samples import Sample, load_samples
from sgsd_lightning.language_models.cache import AnswerCache
from sgsd_lightning.skills.growth.extraction import extract_candidates
from sgsd_lightning.skills.growth.memories import Memory, load_memories
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.toy.convention_writer import ConventionWriter

MEMORY = Memory(
    memory_id="m",
    problem_id="p",
    problem="1+1",
    reference_answer="2",
    completion="two \0",
    answer=None,
    reward=1.0,
    outcome=1,
    finish_reason="stop",
)
SAMPLE = Sample(
    problem_set="s",
    problem_id="p",
    index=0,
    is_correct=True,
    answer=None,
    reference_answer="2",
    completion_tokens=3,
    finish_reason="stop",
    sources=("gen_001",),
    completion="two \0",
)


def read_samples(path: Path) -> list[Sample]:
    return load_samples(path.parent)


@pytest.mark.parametrize(("record", "read"), [(MEMORY, load_memories), (SAMPLE, read_samples)])
def test_records_come_back_whatever_the_model_wrote(
    record: Memory | Sample, read: Callable[[Path], list[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(asdict(record)).encode() + b'\r\n{"cut o')
    assert read(path) == [record]


@pytest.mark.parametrize(
    ("record", "read", "field", "value", "message"),
    [
        (MEMORY, load_memories, "reward", "1", "'reward' must be a number; got '1'"),
        (MEMORY, load_memories, "answer", 2, "'answer' must be a text or null; got 2"),
        (MEMORY, load_memories, "completion", None, "'completion' must be a text; got None"),
        (MEMORY, load_memories, "reward", float("nan"), "NaN is no value of JSON"),
        (SAMPLE, read_samples, "sources", 5, "'sources' must be a list of ids; got 5"),
        (SAMPLE, read_samples, "is_correct", 1, "'is_correct' must be true or false; got 1"),
        (SAMPLE, read_samples, "index", True, "'index' must be a whole number; got True"),
        (SAMPLE, read_samples, "problem_id", ["p"], r"'problem_id' must be a text; got \['p'\]"),
    ],
)
def test_a_field_of_another_type_is_named_by_file_and_line(
    record: Memory | Sample,
    read: Callable[[Path], list[Any]],
    field: str,
    value: object,
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({**asdict(record), field: value}) + "\n")
    with pytest.raises(ValueError, match=rf"samples\.jsonl:1: .*{message}"):
        read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"memory_id": "m"}', "not a line of progress; remove the file to begin anew"),
        (b"[1]", "not a line of progress"),
        (b'"caf\xe9"', "not UTF-8 text"),
    ],
)
def test_a_damaged_file_of_progress_is_one_sentence(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=rf"progress\.jsonl:1: {message}"):
        extract_candidates([MEMORY], ConventionWriter(), LeakGuard([]), path)


def test_a_cache_skips_what_no_reader_takes_and_says_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_bytes(b'{"key": "k", "reply": "r"}\n"caf\xe9"\n' + b"[" * 100_000 + b"\n" + b"9" * 5000 + b"\n")
    assert AnswerCache(path).find("k") == "r"
    assert "cache.jsonl:2: 3 lines are no cached answers" in caplog.text
