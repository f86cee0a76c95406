"""Refuses combinations of valid parts that would learn nothing."""

from __future__ import annotations

from transformers import PreTrainedModel

from sgsd_lightning.contexts import NoContext, PlainPrompt
from sgsd_lightning.policy import LiveTeacher
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.types import ScoreRequest


def check_parts(learner: Learner) -> None:
    """Refuse combinations whose loss would always be 0, before a model is loaded.

    Raises:
        ValueError: naming the settings.
    """
    objective, contexts = learner.objective, learner.contexts
    group_size = learner.rollouter.group_size
    if objective.compares_siblings and group_size < 2:
        raise ValueError(
            f"rollouts.group_size is {group_size}, and {type(objective).__name__} compares a rollout with the others "
            "of its group: every advantage would be 0; set it to 2 or more"
        )
    if not objective.needs_teachers:
        return
    if isinstance(contexts, NoContext):
        raise ValueError(
            f"model.contexts is NoContext, and {type(objective).__name__} learns from teachers: nothing would be "
            "learnt; take contexts that show teachers something, such as SkillPairs or ReferenceAnswer"
        )
    if type(contexts) is PlainPrompt and type(learner.teacher) is LiveTeacher:
        raise ValueError(
            "model.contexts is PlainPrompt and model.teacher_weights LiveTeacher: teacher and student are the same "
            f"model under the same prompt, from which {type(objective).__name__} learns nothing; take another context, "
            "or a teacher such as FrozenTeacher"
        )


def check_vocabulary(request: ScoreRequest, model: PreTrainedModel) -> None:
    """A local support cannot have more tokens than there are.

    Raises:
        ValueError: if it is to.
    """
    num_tokens = model.get_output_embeddings().weight.shape[0]
    divergence = -1 if request.divergence is None else request.divergence.support_top_k
    largest = max(request.support_top_k, divergence)
    if largest > num_tokens:
        raise ValueError(
            f"objective.support_top_k is {largest}, and the model's vocabulary has {num_tokens} tokens; lower it, or "
            "set it to -1 for the whole vocabulary"
        )
