"""Context builders: what each teacher sees beyond the problem."""

from sgsd_lightning.contexts.base import (
    BankContexts,
    ContextBuilder,
    NoContext,
    ProblemContextBuilder,
    student_guidance,
)
from sgsd_lightning.contexts.plain_prompt import PlainPrompt
from sgsd_lightning.contexts.reference_answer import ReferenceAnswer
from sgsd_lightning.contexts.skill_pairs import SkillPairs

__all__ = [
    "BankContexts",
    "ContextBuilder",
    "NoContext",
    "PlainPrompt",
    "ProblemContextBuilder",
    "ReferenceAnswer",
    "SkillPairs",
    "student_guidance",
]
