"""Checks before the first step, so that bad input stops a run before any work is lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.contexts import ProblemContextBuilder
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.prompts.chat import Prompt
from sgsd_lightning.rollouts import Rollouter
from sgsd_lightning.training.control_tokens import list_texts, warn_of_control_tokens
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.training.usable_problems import keep_usable_problems, shorten_list
from sgsd_lightning.types import Problem, TeacherContext
from sgsd_lightning.verifiers import Verifier

log = logging.getLogger(__name__)


def check_problems(
    data: ProblemDataModule, splits: Sequence[str], learner: Learner, evaluation_verifier: Verifier
) -> None:
    """All checks on the splits that ``data`` has, which keeps the problems that can be used and whose prompts fit.

    Raises:
        ValueError: naming the first problems that cannot be used, and why.
    """
    for split in (split for split in splits if split in data.problems):
        is_training = split == "train"
        verifier = learner.verifier if is_training else evaluation_verifier
        usable = keep_usable_problems(data.problems[split], verifier, split, data.unusable_problems)
        rollouter = learner.rollouter if is_training else None
        data.keep(split, keep_fitting_problems(usable, learner.prompts, learner.tokenizer, split, rollouter))
        if is_training:
            warn_of_control_tokens("items of the bank", learner.contexts.own_texts(), learner.tokenizer)
            guidance = getattr(learner.rollouter, "guidance", None)
            if guidance is not None:
                warn_of_control_tokens("items of the student's bank", guidance.own_texts(), learner.tokenizer)
            check_teacher_prompts(data.problems[split], learner)


def keep_fitting_problems(
    problems: Sequence[Problem],
    prompts: ChatPrompts,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    rollouter: Rollouter | None = None,
) -> list[Problem]:
    """The problems whose student and evaluation prompts fit ``prompts.max_prompt_tokens``.

    ``rollouter`` is training's, which may show the student more than the problem.

    Raises:
        ValueError: if some do not fit and ``prompts.over_long_prompts`` is ``refuse``, or if none fits.
    """
    warn_of_control_tokens(f"{split} problems", list_texts(problems), tokenizer)
    guidance = {} if rollouter is None else rollouter.guidance_for(problems)
    shown = [
        prompt
        for problem in problems
        for prompt in (
            prompts.student_prompt(problem, guidance.get(problem.problem_id)),
            prompts.evaluation_prompt(problem),
        )
    ]
    over_long = prompts.over_long(tokenizer, shown)
    # two prompts of each problem, one after the other
    lengths: dict[int, int] = {}
    for place, length in over_long.items():
        lengths[place // 2] = max(length, lengths.get(place // 2, 0))
    fitting = [problem for place, problem in enumerate(problems) if place not in lengths]
    too_long = [f"{problems[place].problem_id} ({lengths[place]} tokens)" for place in sorted(lengths)]
    if too_long and (prompts.over_long_prompts == "refuse" or not fitting):
        raise ValueError(
            f"{len(too_long)} of {len(problems)} {split} prompts exceed prompts.max_prompt_tokens = "
            f"{prompts.max_prompt_tokens}: {shorten_list(too_long)}. Raise the limit, or set "
            "prompts.over_long_prompts to drop"
        )
    if too_long:
        log.warning(
            "dropped %d of %d over-long %s problems: %s",
            len(too_long),
            len(problems),
            split,
            shorten_list(too_long),
        )
    return fitting


def check_teacher_prompts(problems: Sequence[Problem], learner: Learner) -> None:
    """Every teacher prompt that depends on the problem alone must fit, unless over-long ones are to be dropped.

    Raises:
        ValueError: naming the first (problem, context) pairs that do not fit.
    """
    prompts = learner.prompts
    if prompts.over_long_prompts == "drop":
        return
    shown = teacher_prompts(problems, learner)
    over_long = prompts.over_long(learner.tokenizer, [prompt for _, _, prompt in shown])
    too_long = [
        f"{problem.problem_id} with {'+'.join(context.source_ids)} ({over_long[place]} tokens)"
        for place, (problem, context, _) in enumerate(shown)
        if place in over_long
    ]
    if too_long:
        raise ValueError(
            f"{len(too_long)} teacher prompts exceed prompts.max_prompt_tokens = {prompts.max_prompt_tokens}: "
            f"{shorten_list(too_long)}. Raise the limit, or set prompts.over_long_prompts to drop"
        )


def teacher_prompts(problems: Sequence[Problem], learner: Learner) -> list[tuple[Problem, TeacherContext, Prompt]]:
    """Return the teachers' prompts that depend on the problem alone; none if contexts depend on rollouts."""
    if not isinstance(learner.contexts, ProblemContextBuilder):
        return []
    guidance = learner.rollouter.guidance_for(problems)
    return [
        (problem, context, learner.prompts.teacher_prompt(problem, context, guidance[problem.problem_id]))
        for problem, contexts in zip(problems, learner.contexts.build(problems), strict=True)
        for context in contexts
    ]
