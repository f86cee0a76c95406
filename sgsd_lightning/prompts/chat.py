"""What the model reads: editable prompt texts and the chat template; the only place that makes prompt ids of text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.types import Messages, Problem, TeacherContext

OverLongPrompts = Literal["refuse", "drop"]


class PromptRole(StrEnum):
    """Who reads a prompt; each role has chat-template arguments of its own."""

    STUDENT = "student"
    TEACHER = "teacher"
    EVALUATION = "evaluation"


class ChatPrompts:
    """Renders the prompts of student, teachers and evaluation with the tokenizer's chat template.

    A text holds ``{problem}``, the teacher's also ``{context}``; every other brace stands for itself, so LaTeX needs
    no escapes. The privileged text always lies in the user's turn.

    Args:
        student_text: the user message of the student.
        teacher_text: the user message of a teacher.
        evaluation_text: the user message at evaluation; None takes the student's.
        system_text: a system message for all of them; None for none.
        student_template_args: arguments of the chat template, such as ``{"enable_thinking": false}``.
        teacher_template_args: the same for teachers; None takes the student's. Where the two differ, the student is
            scored against a teacher that expects another format (the paper's run does that).
        evaluation_template_args: the same for evaluation; None takes the student's.
        max_prompt_tokens: the longest prompt that is accepted, in tokens. Nothing is ever cut.
        over_long_prompts: ``refuse`` checks every problem and its contexts before training and stops with the list;
            ``drop`` leaves over-long problems and contexts out and counts them.
    """

    def __init__(
        self,
        student_text: str = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        teacher_text: str = (
            "{problem}\n\nHere is guidance from earlier attempts at similar problems. It may or may not apply.\n"
            "{context}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
        ),
        evaluation_text: str | None = None,
        system_text: str | None = None,
        student_template_args: dict[str, Any] | None = None,
        teacher_template_args: dict[str, Any] | None = None,
        evaluation_template_args: dict[str, Any] | None = None,
        max_prompt_tokens: int = 4096,
        over_long_prompts: OverLongPrompts = "refuse",
    ) -> None:
        _require_placeholders("student_text", student_text, ("{problem}",))
        _require_placeholders("teacher_text", teacher_text, ("{problem}", "{context}"))
        _require_placeholders("evaluation_text", evaluation_text or student_text, ("{problem}",))
        if max_prompt_tokens < 1:
            raise ValueError(f"prompts.max_prompt_tokens must be at least 1; got {max_prompt_tokens}")
        if over_long_prompts not in get_args(OverLongPrompts):
            raise ValueError(
                f"prompts.over_long_prompts must be one of {get_args(OverLongPrompts)}; got {over_long_prompts!r}"
            )
        self.texts = {
            PromptRole.STUDENT: student_text,
            PromptRole.TEACHER: teacher_text,
            PromptRole.EVALUATION: evaluation_text or student_text,
        }
        student_args = student_template_args or {}
        self.template_args: Mapping[PromptRole, dict[str, Any]] = {
            PromptRole.STUDENT: student_args,
            PromptRole.TEACHER: student_args if teacher_template_args is None else teacher_template_args,
            PromptRole.EVALUATION: student_args if evaluation_template_args is None else evaluation_template_args,
        }
        self.system_text = system_text
        self.max_prompt_tokens = max_prompt_tokens
        self.over_long_prompts = over_long_prompts

    def student(
        self, tokenizer: PreTrainedTokenizerBase, problem: Problem, guidance: TeacherContext | None = None
    ) -> tuple[int, ...]:
        """The student's prompt ids, up to where its answer starts; with guidance, the teacher's text under the
        student's template arguments.
        """
        return self.render(tokenizer, self.student_messages(problem, guidance), PromptRole.STUDENT)

    def student_messages(self, problem: Problem, guidance: TeacherContext | None = None) -> Messages:
        """The student's chat, before the template."""
        return self.messages(PromptRole.STUDENT if guidance is None else PromptRole.TEACHER, problem, guidance)

    def teacher(
        self,
        tokenizer: PreTrainedTokenizerBase,
        problem: Problem,
        context: TeacherContext,
        guidance: TeacherContext | None = None,
    ) -> tuple[int, ...]:
        """A teacher's prompt ids: the student's guidance, if there is any, then the teacher's own context.

        A teacher that is shown nothing of its own reads the student's prompt; one with a chat of its own reads that.
        """
        if context.messages is not None:
            return self.render(tokenizer, context.messages, PromptRole.TEACHER)
        if not context.text:
            return self.student(tokenizer, problem, guidance)
        shown = context if guidance is None else replace(context, text=f"{guidance.text}\n\n{context.text}")
        return self.render(tokenizer, self.messages(PromptRole.TEACHER, problem, shown), PromptRole.TEACHER)

    def evaluation(
        self, tokenizer: PreTrainedTokenizerBase, problem: Problem, context: TeacherContext | None = None
    ) -> tuple[int, ...]:
        """The prompt ids at evaluation; with a context, the teacher's text under evaluation's template arguments."""
        role = PromptRole.EVALUATION if context is None else PromptRole.TEACHER
        return self.render(tokenizer, self.messages(role, problem, context), PromptRole.EVALUATION)

    def messages(self, role: PromptRole, problem: Problem, context: TeacherContext | None = None) -> Messages:
        """The chat of a role, before the template."""
        user = fill(self.texts[role], problem=problem.text, context=context.text if context else "")
        system = [{"role": "system", "content": self.system_text}] if self.system_text else []
        return [*system, {"role": "user", "content": user}]

    def render(self, tokenizer: PreTrainedTokenizerBase, messages: Messages, role: PromptRole) -> tuple[int, ...]:
        """Apply the chat template and tokenize, once: the template's special tokens are the only ones added."""
        encoding = tokenizer.apply_chat_template(
            list(messages),
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            **self.template_args[role],
        )
        return tuple(encoding["input_ids"])

    def is_over_long(self, prompt_ids: tuple[int, ...]) -> bool:
        """Whether a prompt exceeds ``max_prompt_tokens``."""
        return len(prompt_ids) > self.max_prompt_tokens


def fill(text: str, **values: str) -> str:
    """Put each value where ``{name}`` stands, in one pass: braces inside values and other braces stay as they are."""
    parts = [text]
    for name, value in values.items():
        mark = "{" + name + "}"
        parts = list(_spread(parts, mark, value))
    return "".join(parts)


class _Filled(str):
    """A piece that came from a value and is not searched for placeholders again."""

    __slots__ = ()


def _spread(parts: Iterable[str], mark: str, value: str) -> Iterable[str]:
    for part in parts:
        if isinstance(part, _Filled):
            yield part
            continue
        pieces = part.split(mark)
        for index, piece in enumerate(pieces):
            if index:
                yield _Filled(value)
            yield piece


def _require_placeholders(name: str, text: str, placeholders: tuple[str, ...]) -> None:
    for placeholder in placeholders:
        if placeholder not in text:
            raise ValueError(f"prompts.{name} must contain {placeholder}; got {text!r}")
