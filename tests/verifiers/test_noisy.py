"""A verifier that errs on purpose: as often as asked, always in the same places."""

from __future__ import annotations

import pytest

from sgsd_lightning.types import Problem
from sgsd_lightning.verifiers import MathAnswer, NoisyVerifier
from tests.support.tiny import EvenSum, tiny_rollout


def rollouts(num: int) -> list:  # type: ignore[type-arg]
    problem = Problem(problem_id="p", text="?", answer="1")
    return [tiny_rollout(problem, [1], [index, index // 3]) for index in range(num)]


@pytest.mark.parametrize("flip_frac", [0.0, 0.25, 1.0])
def test_so_many_verdicts_are_turned_round(flip_frac: float) -> None:
    asked = rollouts(2000)
    right = [judged.verdict.outcome for judged in EvenSum().verify(asked)]
    noisy = NoisyVerifier(EvenSum(), flip_frac)
    found = [judged.verdict.outcome for judged in noisy.verify(asked)]
    flipped = sum(mine != other for mine, other in zip(found, right, strict=True)) / len(right)
    assert flipped == pytest.approx(flip_frac, abs=0.03 if 0 < flip_frac < 1 else 0)
    assert [noisy.verify([rollout])[0].verdict.outcome for rollout in asked[:50]] == found[:50]
    other_seed = [judged.verdict.outcome for judged in NoisyVerifier(EvenSum(), flip_frac, seed=1).verify(asked)]
    assert (other_seed == found) == (flip_frac in (0.0, 1.0))


def test_the_rest_is_the_right_verifier_s() -> None:
    noisy = NoisyVerifier(MathAnswer(truncated_rollouts="dropped"), 0.5)
    assert noisy.truncated_rollouts == "dropped"
    assert noisy.check_answer("") == MathAnswer().check_answer("")
    with pytest.raises(ValueError, match=r"verifier.flip_frac must be in \[0, 1\]; got 1.5"):
        NoisyVerifier(MathAnswer(), 1.5)
