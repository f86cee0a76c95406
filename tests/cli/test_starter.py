"""Training on problems of one's own, with those that the package ships: it must run anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgsd_lightning.cli import main
from sgsd_lightning.data import JsonlProblems
from sgsd_lightning.files import locate
from sgsd_lightning.skills import SkillBank
from sgsd_lightning.skills.inspection import find_problems
from sgsd_lightning.verifiers import MathAnswer
from sgsd_lightning.verifiers.math.equivalence import math_equal

PROBLEMS = "package://sgsd_lightning.starter/word_problems.jsonl"
BANK = "package://sgsd_lightning.starter/word_bank.json"
TRAIN = "--data.init_args.train.init_args.path"
QUICK = ["--trainer.max_steps=1", "--trainer.logger=false", "--trainer.limit_val_batches=0"]
QUICK += ["--model.init_args.rollouts.init_args.sampling.max_new_tokens=2"]


def fit(*arguments: str) -> int:
    return main(["fit", "--config", "sgsd_starter", *QUICK, *arguments])


def test_the_problems_that_ship_can_be_judged_and_their_solutions_end_in_the_answer() -> None:
    problems = JsonlProblems(PROBLEMS).load()
    assert len(problems) == 12
    for problem in problems:
        assert MathAnswer().check_answer(problem.answer) is None
        assert problem.solution
    plain = [problem for problem in problems if problem.answer.isdigit()]
    assert all(problem.answer in (problem.solution or "") for problem in plain)
    assert not math_equal(problems[0].answer, problems[1].answer)


def test_the_bank_that_ships_has_nothing_the_matter_with_it() -> None:
    assert find_problems(BANK) == []
    bank = SkillBank.load(BANK)
    assert (len(bank.general_skills), len(bank.common_mistakes)) == (4, 4)


def test_a_run_on_them_needs_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit() == 0
    rollouts = (tmp_path / "runs/sgsd_starter/rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    known = {problem.problem_id for problem in JsonlProblems(PROBLEMS).load()}
    assert {json.loads(line)["problem_id"] for line in rollouts} <= known


def test_problems_that_cannot_be_used_stop_a_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = [("q", "proof"), ("twice", "1"), ("twice", "2"), ("a \x0crac{1}{2}", "1")]
    lines = [json.dumps({"problem": text, "answer": answer}) + "\n" for text, answer in bad]
    sound = locate(PROBLEMS, "problem file").read_text(encoding="utf-8")
    (tmp_path / "mine.jsonl").write_text("".join(lines) + sound)
    assert fit(f"{TRAIN}=mine.jsonl") == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "unusable_problems to drop" in line]
    assert "4 of 16 problems have an answer or a text that train cannot use: mine-1 ('proof'" in told
    assert "mine-2 and mine-3 (one text, two answers" in told
    assert "mine-4 (problem: LaTeX lost its backslash" in told
    assert not list(tmp_path.rglob("*.ckpt"))
