"""Prompts: placeholders, roles and their template arguments, over real chat templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts, PromptRole
from sgsd_lightning.prompts.chat import fill
from sgsd_lightning.types import Problem, TeacherContext

PROBLEM = Problem(problem_id="p", text=r"Find $\frac{1}{2}$ of {context}.", answer="1")
CONTEXT = TeacherContext(text="Skill {problem} \\boxed{x}", weight=1.0)


@given(st.text(), st.text())
def test_filling_is_one_pass_whatever_the_values_hold(problem: str, context: str) -> None:
    text = "<{problem}|{context}|{other}|{problem}>"
    assert fill(text, problem=problem, context=context) == f"<{problem}|{context}|{{other}}|{problem}>"


def test_latex_and_placeholders_inside_values_stay_as_they_are() -> None:
    prompts = ChatPrompts(teacher_text="{context} # {problem} \\boxed{}")
    (message,) = prompts.messages(PromptRole.TEACHER, PROBLEM, CONTEXT)
    assert message["content"] == CONTEXT.text + " # " + PROBLEM.text + r" \boxed{}"


def test_each_role_renders_with_its_own_template_arguments() -> None:
    tokenizer = byte_tokenizer()
    prompts = ChatPrompts(
        student_template_args={"enable_thinking": False},
        teacher_template_args={"enable_thinking": True},
        evaluation_template_args={"enable_thinking": True},
    )
    student = tokenizer.decode(prompts.student(tokenizer, PROBLEM))
    teacher = tokenizer.decode(prompts.teacher(tokenizer, PROBLEM, CONTEXT))
    evaluation = tokenizer.decode(prompts.evaluation(tokenizer, PROBLEM))
    assert student.endswith("</think>\n\n")
    assert not teacher.endswith("</think>\n\n")
    assert CONTEXT.text in teacher
    assert CONTEXT.text not in student
    assert student.removesuffix("<think>\n\n</think>\n\n") == evaluation


def test_teacher_and_evaluation_take_the_students_template_arguments_by_default() -> None:
    prompts = ChatPrompts(student_template_args={"enable_thinking": False})
    assert set(map(str, prompts.template_args.values())) == {"{'enable_thinking': False}"}


def test_evaluation_with_a_context_shows_it() -> None:
    tokenizer = byte_tokenizer()
    shown = tokenizer.decode(ChatPrompts().evaluation(tokenizer, PROBLEM, CONTEXT))
    assert CONTEXT.text in shown


def test_a_system_text_comes_first() -> None:
    roles = [message["role"] for message in ChatPrompts(system_text="Be brief.").messages(PromptRole.STUDENT, PROBLEM)]
    assert roles == ["system", "user"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student_text": "no place"}, r"prompts\.student_text must contain \{problem\}"),
        ({"teacher_text": "{problem}"}, r"prompts\.teacher_text must contain \{context\}"),
        ({"evaluation_text": "x"}, r"prompts\.evaluation_text must contain \{problem\}"),
        ({"max_prompt_tokens": 0}, r"prompts\.max_prompt_tokens must be at least 1; got 0"),
        ({"over_long_prompts": "cut"}, r"prompts\.over_long_prompts must be one of .*; got 'cut'"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChatPrompts(**settings)
