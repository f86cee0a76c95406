"""The evidence ledger: intervals, tallies, forgetting, and what survives a checkpoint."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from sgsd_lightning.metrics.intervals import wilson_interval
from sgsd_lightning.skills import EvidenceLedger
from sgsd_lightning.types import Observation


def seen(
    polarity: int, outcome: int = 1, ids: tuple[str, ...] = ("gen_001", "err_001"), score: float = 0.5
) -> Observation:
    return Observation(source_ids=ids, outcome=outcome, polarity=polarity, stance_score=score, gated_loss=0.25)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (3, 7), (50, 100), (999, 1000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_is_scipys(successes: int, trials: int, confidence: float) -> None:
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    low, value, high = wilson_interval(successes, trials, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert value == successes / trials


def test_of_nothing_everything_is_possible() -> None:
    assert wilson_interval(0, 0) == (0.0, 0.5, 1.0)
    assert EvidenceLedger().usefulness("never seen") == (0.0, 0.5, 1.0)
    assert EvidenceLedger().misleading("never seen") == (0.0, 0.5, 1.0)


@given(st.floats(0, 1), st.floats(1e-6, 1e6))
def test_the_interval_holds_its_value_and_stays_in_bounds(share: float, trials: float) -> None:
    low, value, high = wilson_interval(share * trials, trials)
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1


def test_a_pairs_observation_counts_for_pair_skill_and_mistake() -> None:
    ledger = EvidenceLedger()
    ledger.observe(1, [seen(1), seen(-1, outcome=-1), seen(0, ids=("gen_001", "err_002"))])
    assert {key: tally.num_uses for key, tally in ledger.items.items()} == {"gen_001": 3, "err_001": 2, "err_002": 1}
    assert {key: tally.num_uses for key, tally in ledger.pairs.items()} == {"gen_001+err_001": 2, "gen_001+err_002": 1}
    skill = ledger.items["gen_001"]
    assert [skill.count(polarity) for polarity in (1, 0, -1)] == [1, 1, 1]
    assert skill.count(-1, outcome=-1) == 1
    assert skill.count(-1, outcome=1) == 0
    assert skill.mean_stance_score == pytest.approx(0.5)
    assert skill.mean_gated_loss == pytest.approx(0.25)


def test_a_neutral_teacher_counts_half() -> None:
    ledger = EvidenceLedger()
    ledger.observe(1, [seen(1), seen(0), seen(0), seen(-1), seen(-1)])
    assert ledger.usefulness("gen_001") == wilson_interval(2.0, 5)
    assert ledger.misleading("gen_001") == wilson_interval(2.0, 5)
    assert ledger.usefulness("gen_001").value == pytest.approx(0.4)


def test_what_was_not_judged_or_is_not_finite_says_nothing() -> None:
    ledger = EvidenceLedger()
    ledger.observe(1, [seen(0, outcome=0), seen(1, score=math.nan), seen(1, score=math.inf)])
    assert not ledger.items
    assert not ledger.pairs


def test_old_observations_fade_by_half_lives_also_while_an_item_is_not_used() -> None:
    ledger = EvidenceLedger(half_life_steps=10)
    ledger.observe(0, [seen(-1)] * 8)
    ledger.observe(20, [seen(1)] * 2)  # 8 misleading ones weigh 2 by now
    assert ledger.usefulness("gen_001") == pytest.approx(wilson_interval(2, 4))
    ledger.observe(30, [])
    assert ledger.usefulness("gen_001") == pytest.approx(wilson_interval(1, 2))
    assert ledger.items["gen_001"].num_uses == 10


def test_without_a_half_life_nothing_fades() -> None:
    ledger = EvidenceLedger()
    ledger.observe(0, [seen(1)] * 3)
    ledger.observe(1000, [seen(-1)])
    assert ledger.usefulness("gen_001") == wilson_interval(3, 4)


def test_a_ledger_goes_on_from_its_json_as_if_it_had_not_stopped() -> None:
    steps = [(step, [seen(step % 3 - 1, outcome=(-1) ** step, score=0.1 * step)]) for step in range(12)]
    whole, first, second = (EvidenceLedger(half_life_steps=3) for _ in range(3))
    for step, found in steps:
        whole.observe(step, found)
    for step, found in steps[:5]:
        first.observe(step, found)
    second.load_json(first.to_json())
    for step, found in steps[5:]:
        second.observe(step, found)
    assert second.to_json() == whole.to_json() == EvidenceLedger.from_json(whole.to_json()).to_json()
