"""Problem sets by name, read from local copies in the hub's layout: there is no hub where tests run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from sgsd_lightning.data import NAMED_SETS, NamedProblems, ProblemSource, load_problem_set

datasets = pytest.importorskip("datasets", reason="needs the extra `data`")

DAPO = NAMED_SETS["dapo_math_17k"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def hub_record(name: str, number: int) -> dict[str, Any]:
    """A record with the columns and types of the hub's repository."""
    text, answer = f"What is {number} + 0?", str(number)
    match name:
        case "aime24":
            return {
                "id": 60 + number,
                "problem": text,
                "solution": "Add.",
                "answer": answer,
                "url": "https://artofproblemsolving.com",
                "year": "2024",
            }
        case "aime25":
            return {"problem": text, "answer": answer, "id": answer}
        case "hmmt25":
            return {"problem_idx": number, "answer": answer, "problem_type": ["Algebra"], "problem": text}
        case "math500":
            return {
                "problem": text,
                "solution": "Add.",
                "answer": answer,
                "subject": "Prealgebra",
                "level": 1,
                "unique_id": f"test/prealgebra/{number}.json",
            }
        case "amc23":
            return {"id": number, "question": text, "answer": float(number), "url": "https://artofproblemsolving.com"}
        case "dapo_math_17k":
            return {
                "data_source": "math_dapo",
                "prompt": [{"content": DAPO.drop_prefix + text + DAPO.drop_suffix, "role": "user"}],
                "ability": "MATH",
                "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
                "extra_info": {"index": f"9a9b6eb4-{number}"},
            }
        case "openthoughts":
            return {"problem": text, "solution": "<think>Add.</think>", "Answer": answer, "generated_token_count": 9}
    raise AssertionError(f"the columns of {name} are not written down here")


def write_repository(folder: Path, name: str, num_records: int) -> Path:
    """A repository as the hub has it: a card that names the files, and parquet under data/."""
    records = datasets.Dataset.from_list([hub_record(name, number) for number in range(num_records)])
    split = NAMED_SETS[name].split
    (folder / "data").mkdir(parents=True)
    records.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    files = f"- split: {split}\n    path: data/{split}-*"
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  {files}\n---\n# {name}\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


FIRST_IDS = {
    "aime24": "aime24-60",
    "aime25": "aime25-0",
    "hmmt25": "hmmt25-0",
    "math500": "math500-test/prealgebra/0.json",
    "amc23": "amc23-0",
    "dapo_math_17k": "dapo_math_17k-9a9b6eb4-0",
    "openthoughts": "openthoughts-row-0",
}


@pytest.mark.parametrize("name", NAMED_SETS)
def test_a_copy_of_the_hubs_repository_is_read(name: str, tmp_path: Path) -> None:
    num_problems = NAMED_SETS[name].num_problems or 3
    problems = NamedProblems(name, path=str(write_repository(tmp_path / "copy", name, num_problems))).load()
    assert len(problems) == num_problems
    assert problems[0].problem_id == FIRST_IDS[name]
    assert [problem.text for problem in problems] == [f"What is {number} + 0?" for number in range(num_problems)]
    assert [float(problem.answer) for problem in problems] == list(range(num_problems))
    assert (problems[0].solution is not None) == (name in ("aime24", "math500", "openthoughts"))


def test_a_repository_of_json_lines_without_a_card_is_read(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "copy" / "test.jsonl", [hub_record("aime25", number) for number in range(30)])
    assert len(NamedProblems("aime25", path=str(tmp_path / "copy")).load()) == 30


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_copy_may_be_one_file(suffix: str, tmp_path: Path) -> None:
    records = [hub_record("aime25", number) for number in range(30)]
    path = tmp_path / f"any_name{suffix}"
    if suffix == ".jsonl":
        write_json_lines(path, records)
    else:
        datasets.Dataset.from_list(records).to_parquet(str(path))
    assert [problem.problem_id for problem in NamedProblems("aime25", path=str(path)).load()][:2] == [
        "aime25-0",
        "aime25-1",
    ]


def test_the_repeats_of_dapo_count_once(tmp_path: Path) -> None:
    records = [hub_record("dapo_math_17k", number) for number in (0, 1, 2)] * 3
    same_question = hub_record("dapo_math_17k", 1) | {"extra_info": {"index": "another"}}
    same_question["prompt"] = [{"content": DAPO.drop_prefix + "What is 1 + 0? " + DAPO.drop_suffix, "role": "user"}]
    write_json_lines(tmp_path / "dapo.jsonl", [*records, same_question])
    problems = NamedProblems("dapo_math_17k", path=str(tmp_path / "dapo.jsonl")).load()
    assert [problem.answer for problem in problems] == ["0", "1", "2"]


def test_another_number_of_problems_is_an_error_unless_limited(tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "copy", "aime24", 29)
    with pytest.raises(ValueError, match=r"'aime24' must hold 30 problems; .*copy has 29"):
        NamedProblems("aime24", path=str(folder)).load()
    assert len(NamedProblems("aime24", path=str(folder), limit=5).load()) == 5


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no problem set named 'aime23'; there are aime24, aime25, .*openthoughts"):
        NamedProblems("aime23")


def test_without_the_hub_the_set_the_repository_and_the_way_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"'math500' .* HuggingFaceH4/MATH-500 .*; .* name the copy as path"):
        NamedProblems("math500").load()


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("nowhere", FileNotFoundError, r"path .*nowhere of the problem set 'aime25' does not exist"),
        ("set.csv", ValueError, r"path of the problem set 'aime25' must be a folder, or end with .*; got .*set\.csv"),
        ("other.jsonl", ValueError, r"'aime25', .*other\.jsonl\[train\] row 0: the field 'answer' .* is missing"),
        ("empty", OSError, r"'aime25', read from .*empty: .*"),
        ("train_only", ValueError, r"'aime25', read from .*train_only: Unknown split"),
    ],
)
def test_a_bad_copy_is_named(path: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / "set.csv").touch()
    (tmp_path / "empty").mkdir()
    write_json_lines(tmp_path / "other.jsonl", [{"problem": "1+1", "solution": "2"}])
    write_json_lines(tmp_path / "train_only" / "train.jsonl", [hub_record("aime25", 0)])
    with pytest.raises(kind, match=message):
        NamedProblems("aime25", path=str(tmp_path / path)).load()


def test_yaml_names_a_set() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--problems", type=ProblemSource)
    value = {"class_path": "sgsd_lightning.data.NamedProblems", "init_args": {"name": "aime24", "limit": None}}
    source = parser.instantiate(parser.parse_object({"problems": value})).problems
    assert isinstance(source, NamedProblems)
    assert (source.name, source.path, source.limit) == ("aime24", None, None)


def test_a_problem_set_is_a_file_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"problem": "1+1", "answer": "2"}, {"problem": "2+2", "answer": "4"}]
    write_json_lines(tmp_path / "mine.jsonl", lines)
    datasets.Dataset.from_list(lines).to_parquet(str(tmp_path / "also_mine.parquet"))
    assert [p.problem_id for p in load_problem_set(str(tmp_path / "mine.jsonl"))] == ["mine-1", "mine-2"]
    assert [p.problem_id for p in load_problem_set(str(tmp_path / "also_mine.parquet"))] == [
        "also_mine-0",
        "also_mine-1",
    ]
    monkeypatch.setattr(NamedProblems, "load", lambda self: [self.name])
    assert load_problem_set("amc23") == ["amc23"]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("nowhere.jsonl", FileNotFoundError, r"nowhere\.jsonl does not exist"),
        ("nowhere.parquet", FileNotFoundError, r"--problems nowhere\.parquet: the file does not exist"),
        (
            "aime23",
            ValueError,
            r"--problems aime23: neither a \.jsonl or \.parquet file nor a problem set; there are a",
        ),
        ("a.csv", ValueError, r"--problems a\.csv: neither"),
    ],
)
def test_what_is_no_problem_set_is_named(value: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_problem_set(value)


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
