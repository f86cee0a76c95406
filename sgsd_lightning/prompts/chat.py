"""What the model reads: editable prompt texts and the chat template; the only place that makes prompt ids of text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.encoding import (
    TemplateError,
    encode_chats,
    encode_rendered,
    holds_reserved,
    no_template,
    render_chats,
    tokens_per_byte,
)
from sgsd_lightning.types import Messages, Problem, TeacherContext

OverLongPrompts = Literal["refuse", "drop"]


class PromptRole(StrEnum):
    """Who reads a prompt; each role has chat-template arguments of its own."""

    STUDENT = "student"
    TEACHER = "teacher"
    EVALUATION = "evaluation"


class Prompt(NamedTuple):
    """A chat before the template, and whose template arguments it is rendered with."""

    messages: Messages
    role: PromptRole


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
        chat_template: a Jinja template instead of the tokenizer's, for base models that have none: its text, or a file.
            An exported policy keeps it.
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
        chat_template: str | None = None,
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
        self.chat_template = None if chat_template is None else _template_text(chat_template)

    def student(
        self, tokenizer: PreTrainedTokenizerBase, problem: Problem, guidance: TeacherContext | None = None
    ) -> tuple[int, ...]:
        """The student's prompt ids, up to where its answer starts; with guidance, the teacher's text under the
        student's template arguments.
        """
        return self.render(tokenizer, *self.student_prompt(problem, guidance))

    def student_prompt(self, problem: Problem, guidance: TeacherContext | None = None) -> Prompt:
        """What :meth:`student` renders."""
        return Prompt(self.student_messages(problem, guidance), PromptRole.STUDENT)

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
        return self.render(tokenizer, *self.teacher_prompt(problem, context, guidance))

    def teacher_prompt(
        self, problem: Problem, context: TeacherContext, guidance: TeacherContext | None = None
    ) -> Prompt:
        """What :meth:`teacher` renders."""
        if context.messages is not None:
            return Prompt(context.messages, PromptRole.TEACHER)
        if not context.text:
            return self.student_prompt(problem, guidance)
        shown = context if guidance is None else replace(context, text=f"{guidance.text}\n\n{context.text}")
        return Prompt(self.messages(PromptRole.TEACHER, problem, shown), PromptRole.TEACHER)

    def evaluation(
        self, tokenizer: PreTrainedTokenizerBase, problem: Problem, context: TeacherContext | None = None
    ) -> tuple[int, ...]:
        """The prompt ids at evaluation; with a context, the teacher's text under evaluation's template arguments."""
        return self.render(tokenizer, *self.evaluation_prompt(problem, context))

    def evaluation_prompt(self, problem: Problem, context: TeacherContext | None = None) -> Prompt:
        """What :meth:`evaluation` renders."""
        role = PromptRole.EVALUATION if context is None else PromptRole.TEACHER
        return Prompt(self.messages(role, problem, context), PromptRole.EVALUATION)

    def messages(self, role: PromptRole, problem: Problem, context: TeacherContext | None = None) -> Messages:
        """The chat of a role, before the template."""
        user = fill(self.texts[role], problem=problem.text, context=context.text if context else "")
        system = [{"role": "system", "content": self.system_text}] if self.system_text else []
        return [*system, {"role": "user", "content": user}]

    def render(self, tokenizer: PreTrainedTokenizerBase, messages: Messages, role: PromptRole) -> tuple[int, ...]:
        """Apply the chat template and tokenize, once: the template's special tokens are the only ones added."""
        with _naming(role):
            (ids,) = encode_chats(tokenizer, [messages], self.render_args(role))
        return ids

    def is_over_long(self, prompt_ids: tuple[int, ...]) -> bool:
        """Whether a prompt exceeds ``max_prompt_tokens``."""
        return len(prompt_ids) > self.max_prompt_tokens

    def render_args(self, role: PromptRole) -> Mapping[str, Any]:
        """What the chat template of a role is called with, a template of the run's own included."""
        own = {} if self.chat_template is None else {"chat_template": self.chat_template}
        return {**self.template_args[role], **own}

    def settle_template(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Give the tokenizer the run's own chat template, so that it is saved with the policy.

        Raises:
            TemplateError: if neither has one.
        """
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        if not tokenizer.chat_template:
            raise no_template(tokenizer)

    def over_long(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], most: int | None = None
    ) -> dict[int, int]:
        """Of those prompts that exceed ``most`` tokens, by their place among ``prompts``: how many tokens.

        Makes ids only of prompts whose length in bytes leaves room for doubt. ``most`` is by default
        ``max_prompt_tokens``.
        """
        most = self.max_prompt_tokens if most is None else most
        found: dict[int, int] = {}
        for role in PromptRole:
            places = [place for place, prompt in enumerate(prompts) if prompt.role is role]
            for start in range(0, len(places), _AT_A_TIME):
                some = places[start : start + _AT_A_TIME]
                with _naming(role):
                    chats = [prompts[place].messages for place in some]
                    lengths = self._lengths_in_doubt(tokenizer, chats, role, most)
                found |= {some[index]: length for index, length in lengths.items() if length > most}
        return dict(sorted(found.items()))

    def _lengths_in_doubt(
        self, tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], role: PromptRole, most: int
    ) -> dict[int, int]:
        """How many tokens, by place, each chat has that may exceed ``most``."""
        args = self.render_args(role)
        per_byte = tokens_per_byte(tokenizer)
        texts = render_chats(tokenizer, chats, args)
        in_doubt = [
            place
            for place, (chat, text) in enumerate(zip(chats, texts, strict=True))
            if per_byte is None or per_byte * len(text.encode()) > most or holds_reserved(tokenizer, chat, args)
        ]
        ids = encode_rendered(tokenizer, [chats[p] for p in in_doubt], [texts[p] for p in in_doubt], args)
        return dict(zip(in_doubt, map(len, ids), strict=True))


_AT_A_TIME = 1024
"""Prompts rendered and encoded in one call; bounds how many texts are in memory."""


@contextmanager
def _naming(role: PromptRole) -> Iterator[None]:
    """Say whose prompt it was that a template could not render."""
    try:
        yield
    except TemplateError as error:
        raise TemplateError(f"the {role} prompt: {error}") from error


def fill(text: str, **values: str) -> str:
    """Put each value where ``{name}`` stands, in one pass: braces inside values and other braces stand as they are."""
    pieces = list(_pieces(text, tuple(values)))
    pieces[1::2] = [values[name] for name in pieces[1::2]]
    return "".join(pieces)


@lru_cache
def _pieces(text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """What stands between placeholders, and their names: the two in turn, text first and last."""
    return tuple(re.split(r"\{(" + "|".join(map(re.escape, names)) + r")\}", text))


def _template_text(text_or_file: str) -> str:
    if "{{" in text_or_file or "{%" in text_or_file:
        return text_or_file
    path = Path(text_or_file)
    if not path.is_file():
        raise ValueError(
            f"prompts.chat_template must be a Jinja template, or a file that holds one; {text_or_file!r} is neither "
            f"(looked in {Path.cwd()})"
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts.chat_template {path} is not UTF-8 text ({error.reason} at {error.start})") from error


def _require_placeholders(name: str, text: str, placeholders: tuple[str, ...]) -> None:
    for placeholder in placeholders:
        if placeholder not in text:
            raise ValueError(f"prompts.{name} must contain {placeholder}; got {text!r}")
