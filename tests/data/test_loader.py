"""The order of problems: the same on any number of processes, resumable anywhere."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from sgsd_lightning.data import ProblemLoader
from sgsd_lightning.types import Problem

PROBLEMS = [Problem(problem_id=str(i), text=f"q{i}", answer="0") for i in range(11)]


def ids(batches: list[list[Problem]]) -> list[list[str]]:
    return [[problem.problem_id for problem in batch] for batch in batches]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3])
def test_a_global_batch_holds_the_same_problems_on_any_number_of_processes(world_size: int, drop_last: bool) -> None:
    per_rank = 2
    alone = ProblemLoader(PROBLEMS, per_rank * world_size, seed=5, drop_last=drop_last)
    ranks = [
        ProblemLoader(PROBLEMS, per_rank, rank=rank, world_size=world_size, seed=5, drop_last=drop_last)
        for rank in range(world_size)
    ]
    together = [sorted(chain(*batches)) for batches in zip(*(ids(list(rank)) for rank in ranks), strict=True)]
    assert together == [sorted(batch) for batch in ids(list(alone))]
    num_whole = len(PROBLEMS) // (per_rank * world_size)
    assert len(together) == (num_whole if drop_last else num_whole + 1)
    seen = list(chain(*together))
    assert len(seen) == len(set(seen))
    assert drop_last or len(seen) == len(PROBLEMS)


def test_epochs_differ_and_derive_from_the_seed() -> None:
    loader = ProblemLoader(PROBLEMS, 2, seed=1)
    first, second = ids(list(loader)), ids(list(loader))
    assert first != second
    again = ProblemLoader(PROBLEMS, 2, seed=1)
    assert [ids(list(again)), ids(list(again))] == [first, second]
    assert ids(list(ProblemLoader(PROBLEMS, 2, seed=2))) != first


@pytest.mark.parametrize("num_done", [0, 1, 4, 5, 7])
def test_a_resumed_loader_goes_on_where_it_stood(num_done: int) -> None:
    whole = ProblemLoader(PROBLEMS, 2, seed=3)
    expected = ids([*whole, *whole])
    loader = ProblemLoader(PROBLEMS, 2, seed=3)
    seen: list[list[str]] = []
    state = loader.state_dict()
    while len(seen) < num_done:
        for batch in loader:
            seen += ids([batch])
            state = loader.state_dict()
            if len(seen) == num_done:
                break
    resumed = ProblemLoader(PROBLEMS, 2, seed=3)
    resumed.load_state_dict(state)
    while len(seen) < len(expected):
        seen += ids(list(resumed))
    assert seen == expected


def test_evaluation_keeps_the_order_and_the_tail_on_every_pass() -> None:
    loader = ProblemLoader(PROBLEMS, 4)
    first = ids(list(loader))
    assert list(chain(*first)) == [problem.problem_id for problem in PROBLEMS]
    next(iter(loader))
    assert ids(list(loader)) == first


def test_evaluation_shares_cover_every_problem_once() -> None:
    loaders = [ProblemLoader(PROBLEMS, 3, rank=rank, world_size=4) for rank in range(4)]
    assert len({len(loader) for loader in loaders}) == 1
    shares = [list(chain(*ids(list(loader)))) for loader in loaders]
    assert sorted(chain(*shares), key=int) == [problem.problem_id for problem in PROBLEMS]


@pytest.mark.parametrize(
    ("batch_size", "window", "world_size"), [(4, 1, 1), (2, 2, 1), (1, 4, 1), (2, 1, 2), (1, 2, 2)]
)
def test_an_epoch_ends_at_the_same_problem_however_a_step_is_split(
    batch_size: int, window: int, world_size: int
) -> None:
    loaders = [
        ProblemLoader(PROBLEMS, batch_size, rank=rank, world_size=world_size, seed=5, drop_last=True, window=window)
        for rank in range(world_size)
    ]
    seen = set(chain(*(chain(*ids(list(loader))) for loader in loaders)))
    assert seen == set(chain(*ids(list(ProblemLoader(PROBLEMS, 4, seed=5, drop_last=True)))))
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"batch_size": 2, "window": 2, "drop_last": True}, [1, 1, 1, 1]),
        ({"batch_size": 2, "window": 2}, [1, 1, 1, 1, 4 / 3, 2 / 3]),
        ({"batch_size": 2, "window": 4}, [1, 1, 1, 1, 8 / 3, 4 / 3]),
        ({"batch_size": 8, "window": 2}, [16 / 11, 6 / 11]),
        ({"batch_size": 2, "window": 4, "limit": 3}, [4 / 3, 4 / 3, 4 / 3]),
        ({"batch_size": 2, "window": 4, "limit": 0.5}, [4 / 3, 4 / 3, 4 / 3]),
        ({"batch_size": 8, "window": 2, "drop_last": True}, [2]),
        ({"batch_size": 2, "window": 2, "repeats": 2, "drop_last": True}, [1] * 8),
    ],
)
def test_micro_batches_weigh_by_their_share_of_the_step(settings: dict[str, Any], weights: list[float]) -> None:
    num_taken = settings.get("limit", 1.0)
    found = [batch.weight for batch in ProblemLoader(PROBLEMS, **settings)]
    taken = found[: num_taken if isinstance(num_taken, int) else int(len(found) * num_taken)]
    assert taken == pytest.approx(weights)
    assert all(weight == 1.0 for weight, expected in zip(taken, weights, strict=True) if expected == 1)


@pytest.mark.parametrize("settings", [{}, {"repeats": 2}, {"limit": 3}, {"drop_last": True}])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_micro_batch_names_those_that_follow_in_its_step(window: int, settings: dict[str, Any]) -> None:
    for rank in range(2):
        loader = ProblemLoader(PROBLEMS, 1, rank=rank, world_size=2, seed=1, window=window, **settings)
        batches = list(loader)[: settings.get("limit")]
        for place, batch in enumerate(batches):
            end = (place // window + 1) * window
            assert list(batch.following) == batches[place + 1 : end]


def test_a_micro_batch_after_a_resume_in_the_middle_of_a_step_names_what_is_left_of_it() -> None:
    loader = ProblemLoader(PROBLEMS, 2, seed=1, window=4)
    batches = list(loader)
    resumed = ProblemLoader(PROBLEMS, 2, seed=1, window=4)
    resumed.load_state_dict({"epoch": 0, "num_batches_done": 2})
    assert list(next(iter(resumed)).following) == batches[3:4]
