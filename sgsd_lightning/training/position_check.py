"""Whether the model has positions for the longest prompts and their completions; checked once the model is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.engines import position_limit
from sgsd_lightning.prompts.chat import Prompt
from sgsd_lightning.rollouts import Rollouter
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.training.preflight import teacher_prompts
from sgsd_lightning.types import Problem


def check_positions(
    data: ProblemDataModule, splits: Sequence[str], learner: Learner, evaluation_rollouts: Rollouter
) -> None:
    """Prompts are rendered again only where ``prompts.max_prompt_tokens`` leaves room for doubt.

    Raises:
        ValueError: naming a problem whose prompt and completion may exceed the model's positions.
    """
    limit = position_limit(learner.model.config)
    for split in (split for split in splits if split in data.problems):
        rollouter = learner.rollouter if split == "train" else evaluation_rollouts
        sampling = getattr(rollouter, "sampling", None)
        if limit is None or sampling is None:
            continue
        room = limit.num - sampling.max_new_tokens
        if learner.prompts.max_prompt_tokens <= room:
            continue
        shown = list(_shown(data.problems[split], learner, is_training=split == "train"))
        found = learner.prompts.over_long(learner.tokenizer, [prompt for _, prompt in shown], most=max(room, 0))
        for place, length in found.items():
            limit.check(shown[place][0], length, sampling.max_new_tokens)


def _shown(problems: Sequence[Problem], learner: Learner, *, is_training: bool) -> Iterator[tuple[str, Prompt]]:
    """Every prompt that depends on the problem alone, with its name."""
    prompts = learner.prompts
    if not is_training:
        for problem in problems:
            yield f"the evaluation prompt of problem {problem.problem_id!r}", prompts.evaluation_prompt(problem)
        return
    guidance = learner.rollouter.guidance_for(problems)
    for problem in problems:
        shown = guidance.get(problem.problem_id)
        yield f"the prompt of problem {problem.problem_id!r}", prompts.student_prompt(problem, shown)
    for problem, _, prompt in teacher_prompts(problems, learner):
        yield f"a teacher's prompt of problem {problem.problem_id!r}", prompt
