"""Which samples are made, and what each is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sgsd_lightning.contexts import ReferenceAnswer
from sgsd_lightning.engines import GenerationRequest, RolloutEngine
from sgsd_lightning.evaluation.collection import collect_samples, wanted_samples
from sgsd_lightning.training import EvaluationSettings
from sgsd_lightning.types import Completion, Problem
from tests.support.tiny import loaded_module, tiny_completion


class Witness(RolloutEngine):
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []

    def generate(self, *_: Any, **__: Any) -> list[Completion]:
        raise AssertionError("samples are streamed")

    def stream(
        self, model: Any, requests: Sequence[GenerationRequest], sampling: Any
    ) -> Iterator[tuple[int, Completion]]:
        self.requests += requests
        for place, _ in enumerate(requests):
            yield place, tiny_completion([2])


def test_sets_may_use_the_same_ids_for_different_problems(tmp_path: Path) -> None:
    sets = {
        "first": [Problem(problem_id="1", text="1+1", answer="2")],
        "second": [Problem(problem_id="1", text="3*3", answer="9")],
    }
    engine = Witness()
    settings = EvaluationSettings(contexts=ReferenceAnswer("answer", template="It is {reference}!"))
    module = loaded_module(evaluation=settings, engine=engine)
    collect_samples(module, wanted_samples(sets, 2, (0, 1)), tmp_path / "samples.jsonl")
    shown = [module.learner.tokenizer.decode(request.prompt_ids) for request in engine.requests]
    assert ["It is 2!" in text for text in shown] == [True, False] * 2
    assert ["It is 9!" in text for text in shown] == [False, True] * 2
