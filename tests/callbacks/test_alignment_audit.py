"""The audit and the preflight: each known trap is built on purpose and has to be named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sgsd_lightning.callbacks.alignment_audit import audit
from sgsd_lightning.contexts import ProblemContextBuilder
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.training.preflight import check_teacher_prompts, keep_fitting_problems
from sgsd_lightning.training.usable_problems import keep_usable_problems
from sgsd_lightning.types import JudgedRollout, Problem, TeacherContext, Verdict
from tests.support.tiny import PROBLEMS, EvenSum, NumberedContexts, judged, loaded_module, tiny_rollout


def audited(**settings: object) -> tuple[str, list[str]]:
    module = loaded_module(**settings)
    report = audit(module, PROBLEMS[0])
    return str(report), report.warnings


def test_a_sound_setup_is_shown_without_warnings() -> None:
    text, warnings = audited()
    assert warnings == []
    assert "== student prompt" in text
    assert "== teacher prompt" in text
    assert "== evaluation prompt" in text
    assert "Hint 0" in text
    assert "12 of 12 sampled tokens count" in text
    assert "c2: " in text, "a log-ratio of the first token for every teacher"


def test_templates_that_differ_are_named() -> None:
    prompts = ChatPrompts(student_template_args={"enable_thinking": False}, teacher_template_args={})
    _, warnings = audited(prompts=prompts)
    assert any("teacher and student use different chat-template arguments" in warning for warning in warnings)


def test_an_over_long_prompt_is_named() -> None:
    _, warnings = audited(prompts=ChatPrompts(max_prompt_tokens=60, over_long_prompts="drop"))
    assert any("over prompts.max_prompt_tokens = 60" in warning for warning in warnings)


def test_a_doubled_beginning_of_sequence_is_named() -> None:
    module = loaded_module()
    module.learner.tokenizer.bos_token = "<|endoftext|>"
    module.learner.tokenizer.chat_template = "<|endoftext|><|endoftext|>" + module.learner.tokenizer.chat_template
    assert any("two beginning-of-sequence tokens" in warning for warning in audit(module, PROBLEMS[0]).warnings)


def test_privileged_text_that_is_cut_is_named() -> None:
    module = loaded_module()
    template = module.learner.tokenizer.chat_template
    module.learner.tokenizer.chat_template = template.replace("message.content", "message.content[-9:]")
    told = "the chat template cuts the user message (problem and privileged text) of the teacher prompt"
    assert told in audit(module, PROBLEMS[0]).warnings


def test_a_method_without_teachers_is_audited_too() -> None:
    text, warnings = audited(contexts=NumberedContexts(0))
    assert warnings == []
    assert "== teacher prompt" not in text


def test_an_answer_that_cannot_be_compared_with_stops_the_run() -> None:
    bad = Problem(problem_id="q", text="?", answer="  ")
    with pytest.raises(ValueError, match=r"1 of 2 problems have an answer .* q \('  ': the answer is empty\)"):
        keep_usable_problems([PROBLEMS[0], bad], EvenSum(), "train")


def test_over_long_problems_are_refused_with_their_ids_or_dropped_and_never_cut() -> None:
    tokenizer = byte_tokenizer()
    long = Problem(problem_id="long", text="x" * 400, answer="1")
    prompts = ChatPrompts(max_prompt_tokens=300)
    with pytest.raises(
        ValueError, match=r"1 of 2 train prompts exceed prompts.max_prompt_tokens = 300: long \(\d+ tok"
    ):
        keep_fitting_problems([PROBLEMS[0], long], prompts, tokenizer, "train")
    dropping = ChatPrompts(max_prompt_tokens=300, over_long_prompts="drop")
    assert keep_fitting_problems([PROBLEMS[0], long], dropping, tokenizer, "train") == [PROBLEMS[0]]
    with pytest.raises(ValueError, match="1 of 1 train prompts exceed"):
        keep_fitting_problems([long], dropping, tokenizer, "train")


class OneLongContext(ProblemContextBuilder):
    """Two contexts a problem, the second one too long."""

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        short = TeacherContext(text="short", weight=0.25, source_ids=("s",))
        long = TeacherContext(text="y" * 400, weight=0.75, source_ids=("l",))
        return [[short, long] for _ in problems]


def test_over_long_teacher_prompts_are_refused_or_dropped_with_the_weights_of_the_rest_scaled() -> None:
    module = loaded_module(contexts=OneLongContext(), prompts=ChatPrompts(max_prompt_tokens=400))
    with pytest.raises(ValueError, match=r"2 teacher prompts exceed .* p0 with l \(\d+ tokens\)"):
        check_teacher_prompts(PROBLEMS[:2], module.learner)
    prompts = ChatPrompts(max_prompt_tokens=400, over_long_prompts="drop")
    learner = loaded_module(contexts=OneLongContext(), prompts=prompts).learner
    check_teacher_prompts(PROBLEMS[:2], learner)
    own = [judged(tiny_rollout(PROBLEMS[0], [1, 2], [3]), 1)]
    taught = learner.teach(own, {learner.name: own})
    assert taught.num_over_long == 1
    assert [[context.weight for context in contexts] for contexts in taught.contexts] == [[1.0]]
    (row,) = taught.rows
    assert row.context_weight == (1.0,)
    assert len(row.teachers) == 1


def test_dropped_rollouts_get_no_teachers_and_are_not_scored() -> None:
    learner = loaded_module().learner
    rollout = tiny_rollout(PROBLEMS[0], [1, 2], [3])
    verdict = Verdict(reward=0.0, accepted=False, answer=None, outcome=0, is_dropped=True)
    own = [JudgedRollout(rollout=rollout, verdict=verdict), judged(rollout, 1)]
    taught = learner.teach(own, {learner.name: own})
    assert len(taught.rows) == len(taught.contexts) == 1
    assert taught.scored == [own[1]]
    assert taught.sampled == own
