"""Context builders: what each teacher sees beyond the problem."""

from sgsd_lightning.contexts.base import ContextBuilder, NoContext, guidance_of
from sgsd_lightning.contexts.plain_prompt import PlainPrompt
from sgsd_lightning.contexts.reference_answer import ReferenceAnswer
from sgsd_lightning.contexts.skill_pairs import SkillPairs

__all__ = ["ContextBuilder", "NoContext", "PlainPrompt", "ReferenceAnswer", "SkillPairs", "guidance_of"]
