"""Context builders: what a teacher is shown, where it comes from, and what a checkpoint keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import pytest

from sgsd_lightning.cli import main
from sgsd_lightning.contexts import ContextBuilder, NoContext, PlainPrompt, ReferenceAnswer, SkillPairs
from sgsd_lightning.skills import SkillBank
from sgsd_lightning.types import Problem, TeacherContext
from tests.support.tiny import PROBLEMS, judged, tiny_rollout
from tests.support.tiny_runs import write_run

PROBLEM = Problem(problem_id="p", text="1 + 1", answer="2", solution=r"It is \boxed{2}.")


@pytest.fixture
def bank_file(tmp_path: Path) -> Path:
    skills = [
        {"skill_id": f"gen_{i}", "title": f"T{i}", "principle": r"use {braces} \frac{1}{2}", "when_to_apply": "W"}
        for i in range(3)
    ]
    mistakes = [
        {"mistake_id": f"err_{i}", "description": f"D{i}", "why_it_happens": "Y", "how_to_avoid": "{title}"}
        for i in range(2)
    ]
    path = tmp_path / "bank.json"
    path.write_text(json.dumps({"general_skills": skills, "common_mistakes": mistakes}))
    return path


def test_a_pair_fills_the_template_once_and_names_its_sources(bank_file: Path) -> None:
    template = "{title}|{principle}|{description}|{how_to_avoid}|{other}"
    (contexts,) = SkillPairs(str(bank_file), num_contexts=2, template=template).build([PROBLEM])
    assert contexts[0].text == r"T0|use {braces} \frac{1}{2}|D0|{title}|{other}"
    assert [context.source_ids for context in contexts] == [("gen_0", "err_0"), ("gen_1", "err_1")]
    assert sum(context.weight for context in contexts) == pytest.approx(1)


def test_the_bank_of_a_checkpoint_wins_over_the_file(bank_file: Path) -> None:
    builder = SkillPairs(str(bank_file), num_contexts=1)
    builder.prepare()
    content = json.loads(dict(builder.state_dict())["bank"])
    content["general_skills"] = [{**content["general_skills"][0], "skill_id": "dyn_001", "title": "New"}]
    resumed = SkillPairs(str(bank_file), num_contexts=1)
    resumed.prepare()
    resumed.load_state_dict({"bank": json.dumps(content)})
    assert resumed.build([PROBLEM])[0][0].source_ids == ("dyn_001", "err_0")
    assert SkillBank.from_json(dict(resumed.state_dict())["bank"]).general_skills[0].title == "New"


def test_a_bank_can_come_from_an_installed_package() -> None:
    builder = SkillPairs("package://sgsd_lightning.toy/toy_bank.json", num_contexts=8)
    assert len(builder.build([PROBLEM])[0]) == 8
    with pytest.raises(FileNotFoundError, match="there is no package 'nowhere'"):
        SkillPairs("package://nowhere/bank.json").prepare()


def test_a_configuration_names_a_builder_and_its_retriever(bank_file: Path) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--contexts", type=ContextBuilder)
    retriever = {"class_path": "sgsd_lightning.skills.RandomRetriever", "init_args": {"seed": 5}}
    named = {
        "class_path": "sgsd_lightning.contexts.SkillPairs",
        "init_args": {"bank": str(bank_file), "num_contexts": 2, "retriever": retriever},
    }
    builder = parser.instantiate_classes(parser.parse_object({"contexts": named})).contexts
    assert isinstance(builder, SkillPairs)
    assert builder.retriever.seed == 5
    assert len(builder.build([PROBLEM])[0]) == 2


def test_the_reference_is_the_solution_or_the_answer_with_weight_one() -> None:
    (solution,), (answer,) = (ReferenceAnswer(show=show).build([PROBLEM])[0] for show in ("solution", "answer"))
    assert solution.text.endswith(r"It is \boxed{2}.")
    assert answer.text.endswith("2")
    assert solution.weight == answer.weight == 1
    assert NoContext().build([PROBLEM, PROBLEM]) == [[], []]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SkillPairs("b", weighting="linear"), r"contexts\.weighting must be one of .* got 'linear'"),
        (lambda: SkillPairs("b", template="nothing"), r"contexts\.template must hold at least one of \{title\}"),
        (lambda: ReferenceAnswer(show="hint"), r"contexts\.show must be one of .* got 'hint'"),
        (lambda: ReferenceAnswer(template="x"), r"contexts\.template must hold \{reference\}; got 'x'"),
        (
            lambda: ReferenceAnswer().build([Problem(problem_id="q7", text="?", answer="1")]),
            "problem 'q7' has no solution to show",
        ),
    ],
)
def test_bad_settings_are_named(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


@pytest.mark.parametrize("place", ["rollouts.init_args.guidance", "evaluation.contexts"])
def test_contexts_that_read_rollouts_are_for_teachers_alone(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student has not sampled yet when its prompt is written: refused by type, before anything is built."""
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    named = "tests.support.rollout_contexts.EchoContexts"
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--config=run.yaml", f"--model.init_args.{place}={named}"])
    *_, where, _, said = capsys.readouterr().err.splitlines()
    assert where == f'Parser key "{place.split(".")[-1]}":'
    assert said == "Import path does not correspond to a subclass of ProblemContextBuilder"
    assert not Path("run").exists()
    assert main(["fit", "--config=run.yaml", f"--model.init_args.contexts={named}", "--trainer.max_steps=1"]) == 0
    rows = [json.loads(line) for line in Path("run/rollouts.jsonl").read_text().splitlines()]
    assert {tuple(source for teacher in row["teachers"] for source in teacher["sources"]) for row in rows} == {
        ("ids", "outcome")
    }


def test_contexts_of_a_problem_are_built_once_and_shared_by_its_rollouts() -> None:
    class Counting(PlainPrompt):
        asked: list[list[str]] = []  # noqa: RUF012

        def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
            self.asked.append([problem.problem_id for problem in problems])
            return super().build(problems)

    own = [judged(tiny_rollout(PROBLEMS[place], [1], [2]), 1) for place in (0, 0, 1, 0)]
    first, second, third, fourth = Counting().contexts_for(own, {"policy": own})
    assert Counting.asked == [["p0", "p1"]]
    assert first is second is fourth
    assert first is not third
