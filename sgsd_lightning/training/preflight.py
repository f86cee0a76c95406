"""What is checked before the first step, so that bad input stops a run before any work is lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.contexts import ContextBuilder, guidance_of
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.types import Problem
from sgsd_lightning.verifiers import Verifier

log = logging.getLogger(__name__)
NUM_SHOWN = 5


def check_problems(
    data: ProblemDataModule,
    splits: Sequence[str],
    verifier: Verifier,
    prompts: ChatPrompts,
    tokenizer: PreTrainedTokenizerBase,
    contexts: ContextBuilder,
    student_contexts: ContextBuilder | None = None,
) -> None:
    """All of the checks below on the splits that ``data`` has, which keeps the problems whose prompts fit.

    Raises:
        ValueError: naming the first problems that cannot be used, and why.
    """
    for split in (split for split in splits if split in data.problems):
        is_training = split == "train"
        check_answers(data.problems[split], verifier)
        shown = student_contexts if is_training else None
        data.keep(split, keep_fitting_problems(data.problems[split], prompts, tokenizer, split, shown))
        if is_training:
            check_teacher_prompts(data.problems[split], contexts, prompts, tokenizer, student_contexts)


def check_answers(problems: Sequence[Problem], verifier: Verifier) -> None:
    """Every published answer must be something that the verifier can compare with.

    Raises:
        ValueError: naming the first problems whose answers cannot be used, and why.
    """
    complaints = [(problem, verifier.check_answer(problem.answer)) for problem in problems]
    wrong = [f"{problem.problem_id} ({problem.answer!r}: {why})" for problem, why in complaints if why is not None]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(problems)} problems have an answer that the verifier cannot parse: "
            f"{_shortened(wrong)}. Correct or remove them, or take another verifier"
        )


def keep_fitting_problems(
    problems: Sequence[Problem],
    prompts: ChatPrompts,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    student_contexts: ContextBuilder | None = None,
) -> list[Problem]:
    """The problems whose student and evaluation prompts fit ``prompts.max_prompt_tokens``.

    ``student_contexts`` are those of the training prompts.

    Raises:
        ValueError: if some do not fit and ``prompts.over_long_prompts`` is ``refuse``, or if none fits.
    """
    guidance = guidance_of(student_contexts, problems)
    lengths = {
        problem.problem_id: max(
            len(prompts.student(tokenizer, problem, guidance[problem.problem_id])),
            len(prompts.evaluation(tokenizer, problem)),
        )
        for problem in problems
    }
    fitting = [problem for problem in problems if lengths[problem.problem_id] <= prompts.max_prompt_tokens]
    too_long = [
        f"{problem_id} ({length} tokens)"
        for problem_id, length in lengths.items()
        if length > prompts.max_prompt_tokens
    ]
    if too_long and (prompts.over_long_prompts == "refuse" or not fitting):
        raise ValueError(
            f"{len(too_long)} of {len(problems)} {split} prompts exceed prompts.max_prompt_tokens = "
            f"{prompts.max_prompt_tokens}: {_shortened(too_long)}. Raise the limit, or set "
            "prompts.over_long_prompts to drop"
        )
    if too_long:
        log.warning(
            "dropped %d of %d over-long %s problems: %s",
            len(too_long),
            len(problems),
            split,
            _shortened(too_long),
        )
    return fitting


def check_teacher_prompts(
    problems: Sequence[Problem],
    builder: ContextBuilder,
    prompts: ChatPrompts,
    tokenizer: PreTrainedTokenizerBase,
    student_contexts: ContextBuilder | None = None,
) -> None:
    """Every teacher prompt must fit, unless over-long ones are to be dropped.

    Raises:
        ValueError: naming the first (problem, context) pairs that do not fit.
    """
    if prompts.over_long_prompts == "drop":
        return
    too_long: list[str] = []
    guidance = guidance_of(student_contexts, problems)
    for problem, contexts in zip(problems, builder.build(problems), strict=True):
        for context in contexts:
            length = len(prompts.teacher(tokenizer, problem, context, guidance[problem.problem_id]))
            if length > prompts.max_prompt_tokens:
                too_long.append(f"{problem.problem_id} with {'+'.join(context.source_ids)} ({length} tokens)")
    if too_long:
        raise ValueError(
            f"{len(too_long)} teacher prompts exceed prompts.max_prompt_tokens = {prompts.max_prompt_tokens}: "
            f"{_shortened(too_long)}. Raise the limit, or set prompts.over_long_prompts to drop"
        )


def _shortened(items: Sequence[str]) -> str:
    more = f" and {len(items) - NUM_SHOWN} more" if len(items) > NUM_SHOWN else ""
    return ", ".join(items[:NUM_SHOWN]) + more
