"""Problem sources: what is read, and what is said of bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgsd_lightning.data import DatasetProblems, JsonlProblems, ProblemFields


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("number", ["0.1234567890123456789", "12345678901234567890.5", "123456789012345678901"])
def test_an_answer_that_is_a_number_keeps_its_digits(number: str, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(f'{{"problem": "x", "answer": {number}, "id": {number}}}\n')
    (problem,) = JsonlProblems(str(path)).load()
    assert problem.answer == problem.problem_id == number


def test_a_file_is_read_in_order_with_blank_lines_skipped_and_numbers_taken_as_text(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "p.jsonl",
        '{"id": "a", "problem": " 1+1? ", "answer": 2}',
        "",
        '{"problem": "2+2?", "answer": "4", "solution": "count"}',
    )
    first, second = JsonlProblems(str(path)).load()
    assert (first.problem_id, first.text, first.answer, first.solution) == ("a", "1+1?", "2", None)
    assert (second.problem_id, second.answer, second.solution) == ("p-3", "4", "count")


def test_nested_fields_are_reached_by_dots(tmp_path: Path) -> None:
    record = {
        "prompt": [{"role": "user", "content": "Q"}],
        "reward_model": {"ground_truth": "7"},
        "extra": {"index": 5},
    }
    path = write_lines(tmp_path / "p.jsonl", json.dumps(record))
    fields = ProblemFields(problem="prompt.0.content", answer="reward_model.ground_truth", problem_id="extra.index")
    (problem,) = JsonlProblems(str(path), fields=fields).load()
    assert (problem.problem_id, problem.text, problem.answer) == ("5", "Q", "7")


def test_limit_takes_the_first_problems(tmp_path: Path) -> None:
    lines = [json.dumps({"problem": f"q{i}", "answer": "1"}) for i in range(5)]
    path = write_lines(tmp_path / "p.jsonl", *lines, "this line is not JSON and is never read")
    assert [problem.text for problem in JsonlProblems(str(path), limit=3).load()] == ["q0", "q1", "q2"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}", "{bad"], r"p\.jsonl:1: the field 'problem' \(the problem\) is missing"),
        (['{"problem": "q", "answer": "1"}', "{bad"], r"p\.jsonl:2: not JSON .* one JSON object a line"),
        (["[1, 2]"], r"p\.jsonl:1: a problem must be a JSON object; got list"),
        (
            ['{"problem": "q"}'],
            r"p\.jsonl:1: the field 'answer' \(the answer\) is missing; found \['problem'\]",
        ),
        (
            ['{"problem": "q", "answer": ""}'],
            r"p\.jsonl:1: the field 'answer' .* must be a non-empty text; got ''",
        ),
        (
            ['{"problem": ["q"], "answer": "1"}'],
            r"p\.jsonl:1: the field 'problem' .* must be a non-empty text",
        ),
        ([""], r"p\.jsonl holds no problem"),
        (['{"id": 1, "problem": "q", "answer": "1"}'] * 2, r"the problem id '1' occurs twice"),
    ],
)
def test_a_bad_file_is_refused_with_file_line_and_field(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_lines(tmp_path / "p.jsonl", *lines)
    with pytest.raises(ValueError, match=message):
        JsonlProblems(str(path)).load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl does not exist"):
        JsonlProblems(str(tmp_path / "nowhere.jsonl")).load()


def test_every_shared_problem_file_loads(shared_data: Path) -> None:
    sizes = {"aime24": 30, "aime25": 30, "aime26": 30, "hmmt25": 30, "math500": 500, "math_train_3k": 3000}
    for name, size in sizes.items():
        assert len(JsonlProblems(str(shared_data / f"{name}.jsonl")).load()) == size


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'sgsd-lightning\[data\]'"):
        DatasetProblems("some/set").load()


def test_a_local_parquet_file_in_the_layout_of_dapo_is_read_trimmed_and_deduplicated(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra `data`")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Solve:\n\n{text}\n\nEnd."}],
            "reward_model": {"ground_truth": answer},
            "extra_info": {"index": index},
        }
        for index, (text, answer) in enumerate([("1+1", "2"), ("2+2", "4"), ("1+1", "2")])
    ]
    path = tmp_path / "set.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    source = DatasetProblems(
        "parquet",
        data_files=str(path),
        fields=ProblemFields(
            problem="prompt.0.content", answer="reward_model.ground_truth", problem_id="extra_info.index"
        ),
        drop_prefix="Solve:\n\n",
        drop_suffix="\n\nEnd.",
        deduplicate=True,
    )
    assert [(p.problem_id, p.text, p.answer) for p in source.load()] == [("0", "1+1", "2"), ("1", "2+2", "4")]
