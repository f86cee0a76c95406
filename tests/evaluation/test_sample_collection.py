"""Which samples are made, and what each is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sgsd_lightning.contexts import ReferenceAnswer
from sgsd_lightning.evaluation.collection import collect_samples, wanted_samples
from sgsd_lightning.rollouts import RolloutEngine, RolloutRequest
from sgsd_lightning.training import EvaluationSettings
from sgsd_lightning.types import Problem, Rollout
from tests.support.tiny import tiny_module, tiny_rollout


class Witness(RolloutEngine):
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.requests: list[RolloutRequest] = []

    def generate(self, *_: Any, **__: Any) -> list[Rollout]:
        raise AssertionError("samples are streamed")

    def stream(
        self, model: Any, tokenizer: Any, requests: Sequence[RolloutRequest], sampling: Any
    ) -> Iterator[tuple[int, Rollout]]:
        self.requests += requests
        for place, request in enumerate(requests):
            yield place, tiny_rollout(request.problem, request.prompt_ids, [2])


def test_sets_may_use_the_same_ids_for_different_problems(tmp_path: Path) -> None:
    sets = {
        "first": [Problem(problem_id="1", text="1+1", answer="2")],
        "second": [Problem(problem_id="1", text="3*3", answer="9")],
    }
    engine = Witness()
    settings = EvaluationSettings(contexts=ReferenceAnswer("answer", template="It is {reference}!"))
    module = tiny_module(evaluation=settings, rollouts=engine)
    module.tokenizer = module.policy.load_tokenizer()
    module.model = module.policy.load_model()
    collect_samples(module, wanted_samples(sets, 2, (0, 1)), tmp_path / "samples.jsonl")
    shown = [module.tokenizer.decode(request.prompt_ids) for request in engine.requests]
    assert ["It is 2!" in text for text in shown] == [True, False] * 2
    assert ["It is 9!" in text for text in shown] == [False, True] * 2
