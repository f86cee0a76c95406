"""One prompt, one completion: what it reads, what it is called, and where its randomness comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from transformers import PreTrainedModel

from sgsd_lightning.engines import GenerationRequest, RolloutEngine, TransformersEngine
from sgsd_lightning.rollouts import EvaluationTurn, SingleTurn
from sgsd_lightning.rollouts.base import Wanted
from sgsd_lightning.training import Learner
from sgsd_lightning.types import Completion, Problem, SamplingSettings
from tests.support.rollout_contexts import EchoContexts
from tests.support.tiny import PROBLEMS, NumberedContexts, loaded_module

SHORT = SamplingSettings(max_new_tokens=8)


class Witness(TransformersEngine):
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[GenerationRequest] = []
        self.synced: list[int] = []

    def sync(self, model: PreTrainedModel, version: int) -> None:
        super().sync(model, version)
        self.synced.append(version)

    def generate(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        self.requests += requests
        return super().generate(model, requests, sampling)


class Stale(TransformersEngine):
    """Never takes newer weights."""

    def sync(self, model: PreTrainedModel, version: int) -> None:
        self._version = version - 1


@pytest.fixture
def learner() -> Learner:
    return loaded_module(sampling=SHORT).learner


def test_a_turn_holds_prompt_ids_text_and_the_chat_that_people_read(learner: Learner) -> None:
    rollouts = SingleTurn(sampling=SHORT, group_size=2).rollouts(learner, PROBLEMS[:3], stream="rollout", step=0)
    order = [(rollout.problem.problem_id, rollout.sample_index) for rollout in rollouts]
    assert order == [(f"p{place}", index) for place in range(3) for index in range(2)]
    tokenizer = learner.tokenizer
    for rollout in rollouts:
        (turn,) = rollout.turns
        assert turn.prompt_ids == rollout.prompt_ids == learner.prompts.student(tokenizer, rollout.problem)
        kept = [token_id for token_id in rollout.completion_ids if token_id not in tokenizer.all_special_ids]
        assert rollout.completion_text == turn.text == tokenizer.decode(kept)
        asked, answered = rollout.messages
        assert asked == learner.prompts.student_messages(rollout.problem)[0]
        assert answered == {"role": "assistant", "content": turn.text}
        assert rollout.policy == "policy"
        assert rollout.is_on_policy
        assert len(rollout.logprobs) == len(rollout.sampling_logprobs) == len(rollout.completion_ids)
    assert rollouts[0].completion_ids != rollouts[1].completion_ids


def test_requests_say_whose_they_are_and_when_they_end(learner: Learner) -> None:
    engine = Witness()
    SingleTurn(engine, SHORT, group_size=2).rollouts(learner, PROBLEMS[:2], stream="rollout", step=0)
    assert [request.label for request in engine.requests] == ["problem 'p0'"] * 2 + ["problem 'p1'"] * 2
    assert {request.stop_ids for request in engine.requests} == {(learner.tokenizer.eos_token_id,)}
    assert len({request.seed for request in engine.requests}) == 4
    assert engine.synced == [0]
    long = SamplingSettings(max_new_tokens=10_000_000)
    with pytest.raises(ValueError, match=r"the prompt of problem 'p0' \(\d+ tokens\) and sampling.max_new_tokens = "):
        SingleTurn(engine, long).rollouts(learner, PROBLEMS[:1], stream="rollout", step=0)


def test_a_completion_depends_on_stream_step_problem_and_sample_alone(learner: Learner) -> None:
    rollouter = SingleTurn(sampling=SHORT, group_size=2)

    def ids(wanted: Sequence[Wanted], stream: str = "rollout", step: int | None = 0) -> list[tuple[int, ...]]:
        return [rollout.completion_ids for rollout in rollouter.sample(learner, wanted, stream=stream, step=step)]

    wanted = [Wanted(problem, index) for problem in PROBLEMS[:3] for index in range(2)]
    found = ids(wanted)
    assert len(set(found)) == 6
    assert ids(wanted[::-1]) == found[::-1]
    assert ids(wanted[3:4]) == found[3:4]
    assert not set(ids(wanted, step=1)) & set(found)
    assert not set(ids(wanted, stream="evaluation")) & set(found)
    assert ids(wanted, step=None) == ids(wanted, step=None)
    assert rollouter.sample(learner, [], stream="rollout", step=0) == []
    streamed = dict(rollouter.stream(learner, wanted, stream="memory"))
    assert [streamed[place].completion_ids for place in range(6)] == ids(wanted, stream="memory", step=None)


def test_an_engine_that_keeps_old_weights_is_named(learner: Learner) -> None:
    with pytest.raises(RuntimeError, match="Stale sampled with the weights of step -1 at step 0; an engine that holds"):
        SingleTurn(Stale(), SHORT).rollouts(learner, PROBLEMS[:1], stream="rollout", step=0)


def test_evaluation_shows_one_context_a_sample_in_turn(learner: Learner) -> None:
    rollouter = EvaluationTurn(sampling=SHORT, group_size=4, contexts=NumberedContexts(3))
    rollouts = rollouter.rollouts(learner, PROBLEMS[:2], stream="evaluation")
    for rollout in rollouts:
        shown = learner.tokenizer.decode(list(rollout.prompt_ids))
        assert [f"Hint {k} " in shown for k in range(3)] == [k == rollout.sample_index % 3 for k in range(3)]
        (sources,) = rollouter.sources([Wanted(rollout.problem, rollout.sample_index)])
        assert sources == (f"c{rollout.sample_index % 3}",)
    plain = EvaluationTurn(sampling=SHORT, group_size=1)
    (rollout,) = plain.rollouts(learner, PROBLEMS[:1], stream="evaluation")
    assert rollout.prompt_ids == learner.prompts.evaluation(learner.tokenizer, PROBLEMS[0])
    assert plain.sources([Wanted(PROBLEMS[0], 0)]) == [()]
    nothing = EvaluationTurn(sampling=SHORT, group_size=1, contexts=NumberedContexts(0))
    assert nothing.rollouts(learner, PROBLEMS[:1], stream="evaluation")[0].prompt_ids == rollout.prompt_ids


def test_what_the_student_is_shown_has_sources() -> None:
    rollouter = SingleTurn(guidance=NumberedContexts(2))
    assert rollouter.sources([Wanted(PROBLEMS[0], 0)]) == [("c0", "c1")]
    assert SingleTurn().sources([Wanted(PROBLEMS[0], 0)]) == [()]


def test_a_group_has_at_least_one_rollout() -> None:
    with pytest.raises(ValueError, match=r"rollouts.group_size must be at least 1; got 0"):
        SingleTurn(group_size=0)


def test_an_engine_needs_no_more_than_generate(learner: Learner) -> None:
    class Fixed(RolloutEngine):
        def generate(
            self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
        ) -> list[Completion]:
            return TransformersEngine().generate(model, requests, SamplingSettings(max_new_tokens=2))

    many = [Problem(problem_id=str(number), text="?", answer="1") for number in range(70)]
    rollouter = SingleTurn(Fixed(), SHORT)
    streamed = list(rollouter.stream(learner, [Wanted(problem, 0) for problem in many], stream="memory"))
    assert [place for place, _ in streamed] == list(range(70))
    assert all(rollout.problem is many[place] for place, rollout in streamed)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda builder: SingleTurn(guidance=builder), "rollouts.guidance"),
        (lambda builder: EvaluationTurn(contexts=builder), "evaluation.contexts"),
    ],
)
def test_contexts_that_read_rollouts_are_not_shown_before_there_are_any(build: Any, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a ProblemContextBuilder.* got EchoContexts"):
        build(EchoContexts())
