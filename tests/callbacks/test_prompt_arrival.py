"""What templates do to prompts, each made on purpose, and what the audit says of it."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from sgsd_lightning.callbacks.prompt_arrival import check_arrival
from sgsd_lightning.encoding.templates import reads_the_clock
from sgsd_lightning.policy.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.types import Problem, TeacherContext
from tests.support.tokenizers_of_kinds import KINDS

PROBLEM = Problem(problem_id="p", text="What does the tag </think> end?", answer="1")
CONTEXT = TeacherContext(text="user", weight=1.0)
"""A word that templates write too: arrival is no search for words."""
EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<a>{% endif %}"
TEMPLATES = {
    "sound": (CHAT_TEMPLATE, []),
    "trims": (EACH.replace("m.content", "m.content | trim") + ANSWER, []),
    "system text in the user's turn": (
        "<u>{{ messages[0].content }}\n\n{{ messages[1].content }}" + ANSWER,
        [],
    ),
    "drops the system message": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}{% endif %}{% endfor %}" + ANSWER,
        ["drops the system message (system text)"],
    ),
    "wants parts": (
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}" + ANSWER,
        ["drops the system message (system text)", "drops the user message (problem and privileged text)"],
    ),
    "repeats": (
        EACH + "{{ messages[1].content }}" + ANSWER,
        ["repeats the user message (problem and privileged text)"],
    ),
    "moves": (
        "{{ messages[1].content }} {{ messages[0].content }}" + ANSWER,
        ["moves the system message (system text)"],
    ),
    "cuts": (
        "{{ messages[0].content }}<u>{{ messages[1].content[-9:] }}" + ANSWER,
        ["cuts the user message (problem and privileged text)"],
    ),
    "changes": (
        "{{ messages[0].content }}<u>{{ messages[1].content | upper }}" + ANSWER,
        ["changes the user message (problem and privileged text)"],
    ),
    "cuts at a tag": (EACH.replace("m.content", "m.content.split('</think>')[-1]") + ANSWER, None),
}


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def warnings_of(tokenizer: PreTrainedTokenizerFast, problem: Problem = PROBLEM) -> list[str]:
    prompts = ChatPrompts(system_text="BE EXACT")
    parts = {"problem": problem.text, "system text": "BE EXACT", "privileged text": CONTEXT.text}
    return check_arrival(tokenizer, prompts, prompts.teacher_prompt(problem, CONTEXT), parts)


@pytest.mark.parametrize(("template", "expected"), TEMPLATES.values(), ids=TEMPLATES)
def test_what_a_template_does_to_messages_is_said(template: str, expected: list[str] | None) -> None:
    found = [warning for warning in warnings_of(tokenizer_with(template)) if "holds '</think>'" not in warning]
    if expected is None:
        assert len(found) == 1
        assert "the user message (problem and privileged text) of the teacher prompt" in found[0]
    else:
        assert found == [f"the chat template {said} of the teacher prompt" for said in expected]


def test_a_template_without_a_generation_prompt_is_named() -> None:
    (warning,) = warnings_of(tokenizer_with(EACH), Problem(problem_id="p", text="1 + 1", answer="2"))
    assert warning == (
        "the chat template ignores add_generation_prompt: nothing tells where the teacher prompt's answer starts"
    )


def test_control_tokens_in_parts_are_named() -> None:
    (warning,) = warnings_of(byte_tokenizer())
    assert warning == "the problem of the teacher prompt holds '</think>', which is encoded as text"


@pytest.mark.parametrize("kind", KINDS)
def test_no_tokenizer_that_gives_texts_back_is_blamed(kind: str) -> None:
    assert warnings_of(KINDS[kind](), Problem(problem_id="p", text="(1+1)*2", answer="4")) == []


def test_a_tokenizer_that_loses_characters_is_named() -> None:
    (warning,) = warnings_of(KINDS["unigram"](), Problem(problem_id="p", text="\u222b x", answer="4"))
    assert warning.startswith("the problem does not arrive whole in the ids of the teacher prompt")


DATED = "{% if not date is defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}{{ date }}" + EACH


def test_a_prompt_that_changes_with_the_clock_is_named() -> None:
    chat = [{"role": "user", "content": "x"}]
    for template in (DATED, "{{ strftime_now('%H:%M:%S') }}" + EACH):
        assert reads_the_clock(tokenizer_with(template), chat, {})
        assert any("changes with the clock" in warning for warning in warnings_of(tokenizer_with(template + ANSWER)))
    assert not reads_the_clock(tokenizer_with(DATED), chat, {"date": "26 Jul 2024"})
    assert not reads_the_clock(byte_tokenizer(), chat, {})
