"""Problem files as users have them: in other encodings, with other types, and with what no reader expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgsd_lightning.data import DatasetProblems, JsonlProblems, load_problem_set

READ = {"p_bom": 6, "p_crlf": 6, "p_csvinj": 6, "p_html": 6, "p_special": 6, "p_ctrl": 6}
REFUSED = {
    "p_array.json": r"p_array\.json:1: not JSON .*one JSON object a line, and no array",
    "p_bool.jsonl": r"p_bool\.jsonl:1: the field 'answer' .* must be a non-empty text; got True",
    "p_dup.jsonl": r"p_dup\.jsonl: the problem id 'x' occurs twice",
    "p_empty.jsonl": r"p_empty\.jsonl holds no problem",
    "p_emptyans.jsonl": r"p_emptyans\.jsonl:2: the field 'answer' .* must be a non-empty text; got ''",
    "p_idtypes.jsonl": r"p_idtypes\.jsonl: the problem id '1' occurs twice",
    "p_latin1.jsonl": r"p_latin1\.jsonl:1: not UTF-8 text \(byte 0xe9.*save the file as UTF-8",
    "p_list.jsonl": r"p_list\.jsonl:1: a problem must be a JSON object; got list",
    "p_missing.jsonl": r"p_missing\.jsonl:1: the field 'problem' .* is missing; found \['answer', 'question'\]",
    "p_nan.jsonl": r"p_nan\.jsonl:1: NaN is no value of JSON",
    "p_nested.jsonl": r"p_nested\.jsonl:1: the field 'problem' .* must be a non-empty text; got \{'text': 'a'\}",
    "p_nul.jsonl": r"p_nul\.jsonl:1: the field 'problem' .* holds the character NUL: 'a\\x00b 0'; remove it",
    "p_rawctrl.jsonl": r"p_rawctrl\.jsonl:1: not JSON \(Invalid control character",
    "p_surrogate.jsonl": r"p_surrogate\.jsonl:1: half of a surrogate pair in problem .*write the whole character",
    "p_utf16.jsonl": r"p_utf16\.jsonl:1: UTF-16 text, not UTF-8; save it as UTF-8",
}


@pytest.mark.parametrize("name", READ)
def test_files_of_a_first_hour_that_are_read(shared_cases: Path, name: str) -> None:
    assert len(JsonlProblems(str(shared_cases / "newcomer" / f"{name}.jsonl")).load()) == READ[name]


@pytest.mark.parametrize("name", REFUSED)
def test_files_of_a_first_hour_that_are_refused_in_one_sentence(shared_cases: Path, name: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        JsonlProblems(str(shared_cases / "newcomer" / name)).load()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": {"a": 1}}, r"the field 'id' \(the id\) must be a text or a number; got \{'a': 1\}"),
        ({"id": True}, "must be a text or a number; got True"),
        ({"id": " "}, "must be a text or a number; got ' '"),
        ({"solution": ["s"]}, r"the field 'solution' \(the solution\) must be a text or null; got \['s'\]"),
        ({"solution": "a\0"}, "the field 'solution' .* holds the character NUL"),
        ({"shards": "s"}, "the field 'shards' .* must be a list of texts; got 's'"),
        ({"shards": ["\0"]}, "the field 'shards' .* holds the character NUL"),
        ({"answer": ["x" * 500]}, "must be a non-empty text; got .{1,80}…"),
        ({"answer": None}, "the field 'answer' .* is missing"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, record: dict[str, object], message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"problem": "q", "answer": "1", **record}))
    with pytest.raises(ValueError, match=rf"p\.jsonl:1: .*{message}"):
        JsonlProblems(str(path)).load()


def test_null_is_nothing_in_optional_fields(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"problem": "q", "answer": 2.5, "id": null, "solution": null, "shards": null, "level": 3}')
    (problem,) = JsonlProblems(str(path)).load()
    assert (problem.problem_id, problem.answer, problem.solution, problem.shards) == ("p-1", "2.5", None, ())
    assert problem.metadata == {"level": 3}


def test_the_file_of_a_package_is_read_by_its_name() -> None:
    (first, *others) = load_problem_set("package://sgsd_lightning.starter/word_problems.jsonl")
    assert first.problem_id == "apples"
    assert len(others) == 11


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "problem,answer\ncaf\xe9,1\n".encode("latin-1"), r"utf-8.*p\.csv\[train\]"),
        ("p.parquet", b"PAR1 and nothing that follows", r"arquet.*p\.parquet\[train\]"),
        ("p.csv", b"problem,answer\nq,\n", r"p\.csv\[train\] row 0: the field 'answer' .* is missing"),
    ],
)
def test_what_datasets_cannot_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra `data`")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        DatasetProblems(path.suffix[1:], data_files=str(path)).load()
    assert "\n" not in str(caught.value)
