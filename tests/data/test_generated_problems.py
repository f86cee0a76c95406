"""Problems of reasoning-gym: those that it generates, apart from those that are trained on."""

from __future__ import annotations

import builtins
import logging
from typing import Any

import pytest

from sgsd_lightning.data import ProblemDataModule, ProblemSource, ReasoningGymProblems
from sgsd_lightning.types import Problem

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


class Texts(ProblemSource):
    """Problems of given texts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def load(self) -> list[Problem]:
        return [Problem(problem_id=str(i), text=text, answer="1") for i, text in enumerate(self.texts)]


def held_out(trained_problems: str, train: ProblemSource, validation: ProblemSource, stage: str = "fit") -> list[str]:
    data = ProblemDataModule(train, validation, batch_size=1, trained_problems=trained_problems)  # type: ignore[arg-type]
    data.setup(stage)
    return [problem.text for problem in data.problems["test" if stage == "test" else "validation"]]


def test_evaluation_problems_that_are_trained_on_may_be_kept_dropped_or_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    train, validation = Texts("1 + 1", "2 + 2", "3 + 3"), Texts("0 + 0", "2  +\n2", "4 + 4")
    assert held_out("keep", train, validation) == ["0 + 0", "2  +\n2", "4 + 4"]
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        assert held_out("drop", train, validation) == ["0 + 0", "4 + 4"]
    assert "1 of 3 validation problems are among the training problems" in caplog.text
    with pytest.raises(ValueError, match=r"1 of 3 validation problems .* such as 1: take others, or .* keep or drop"):
        held_out("refuse", train, validation)


def test_evaluation_alone_leaves_the_same_problems_out() -> None:
    assert held_out("drop", Texts("1", "2"), Texts("2", "3"), stage="test") == ["3"]


def test_an_evaluation_of_nothing_but_training_problems_is_refused() -> None:
    with pytest.raises(ValueError, match="2 of 2 validation problems are among the training problems"):
        held_out("drop", Texts("1", "2"), Texts("2", "1"))


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.trained_problems must be one of keep, drop, refuse; got 'skip'"):
        ProblemDataModule(trained_problems="skip")  # type: ignore[arg-type]


@pytest.mark.parametrize(("seed", "is_apart"), [(0, False), (4, False), (14, False), (15, True), (2, False)])
def test_seeds_of_training_and_evaluation_must_not_overlap(seed: int, is_apart: bool) -> None:
    """Problem i of either derives from seed + i; training has those of 5 to 14."""
    train, validation = ReasoningGymProblems("chain_sum", 10, 5), ReasoningGymProblems("chain_sum", 5, seed)
    overlaps = bool(set(range(5, 15)) & set(range(seed, seed + 5)))
    assert overlaps is (not is_apart and seed != 0)
    if not overlaps:
        validation.refuse_if_same(train)
        return
    with pytest.raises(
        ValueError, match=rf"seeds 5 to 14 are trained on and {seed} to {seed + 4} evaluate; .* 15 or more"
    ):
        validation.refuse_if_same(train)
    with pytest.raises(ValueError, match="seeds 5 to 14 are trained on"):
        ProblemDataModule(Loaded(train), Loaded(validation)).setup("fit")


def Loaded(source: ReasoningGymProblems) -> ReasoningGymProblems:
    """The source without the package behind it."""
    source.load = lambda: Texts("a", "b", "c", "d").load()  # type: ignore[method-assign]
    return source


def test_another_data_set_may_have_the_same_seeds() -> None:
    ReasoningGymProblems("gcd", 10, 0).refuse_if_same(ReasoningGymProblems("lcm", 10, 0))
    ReasoningGymProblems("gcd", 10, 0).refuse_if_same(Texts("1"))


@pytest.mark.parametrize(
    ("arguments", "told"), [((0, 0), "data.num must be at least 1"), ((1, -1), "data.seed must be 0")]
)
def test_numbers_out_of_range_are_refused(arguments: tuple[int, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ReasoningGymProblems("chain_sum", *arguments)


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_import = builtins.__import__

    def without_it(name: str, *arguments: Any, **settings: Any) -> Any:
        if name.partition(".")[0] == "reasoning_gym":
            raise ImportError("No module named 'reasoning_gym'")
        return plain_import(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without_it)
    with pytest.raises(ImportError, match=r"need the package reasoning-gym .*: pip install 'sgsd-lightning\[laptop\]'"):
        ReasoningGymProblems("chain_sum", 1).load()


@pytest.fixture(scope="module")
def reasoning_gym() -> Any:
    return pytest.importorskip("reasoning_gym", reason="the extra laptop is not installed: make test-laptop")


def test_problems_are_those_that_reasoning_gym_gives(reasoning_gym: Any) -> None:
    problems = ReasoningGymProblems("chain_sum", 20, 7, **SMALL).load()
    expected = list(reasoning_gym.create_dataset("chain_sum", seed=7, size=20, **SMALL))
    assert [(p.text, p.answer) for p in problems] == [(entry["question"], entry["answer"]) for entry in expected]
    assert [p.problem_id for p in problems] == [f"chain_sum-{seed}" for seed in range(7, 27)]
    assert [dict(p.metadata) for p in problems] == [entry["metadata"] for entry in expected]
    assert ReasoningGymProblems("chain_sum", 20, 7, **SMALL).load() == problems


def test_small_data_sets_repeat_themselves_over_other_seeds(reasoning_gym: Any) -> None:
    """200 different sums: what seeds cannot keep apart, texts do."""
    train, validation = (
        ReasoningGymProblems("chain_sum", 100, **SMALL),
        ReasoningGymProblems("chain_sum", 100, 100, **SMALL),
    )
    kept = held_out("drop", train, validation)
    trained = {problem.text for problem in train.load()}
    assert 20 < len(kept) < 90
    assert not trained & set(kept)


@pytest.mark.parametrize(
    ("dataset", "settings", "told"),
    [
        ("chain_sums", {}, "reasoning-gym has no data set 'chain_sums'; did you mean chain_sum"),
        ("zzz", {}, "reasoning-gym has no data set 'zzz'; there are .*chain_sum"),
        ("chain_sum", {"max_term": 3}, "chain_sum has no setting 'max_term'; did you mean max_terms"),
        ("chain_sum", {"size": 3}, "chain_sum has no setting 'size'; it has min_terms, "),
        (
            "chain_sum",
            {"min_terms": 3, "max_terms": 2},
            "chain_sum refuses min_terms=3, max_terms=2: .*max_terms must be",
        ),
        ("chain_sum", {"min_terms": "two"}, "chain_sum (refuses|cannot generate)"),
    ],
)
def test_what_reasoning_gym_does_not_take_is_said(
    dataset: str, settings: dict[str, Any], told: str, reasoning_gym: Any
) -> None:
    with pytest.raises(ValueError, match=told):
        ReasoningGymProblems(dataset, 3, 0, **settings).load()
