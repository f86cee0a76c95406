"""A skill writer that asks a language model: one call per memory, and one per group of items to merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sgsd_lightning.language_models.base import LanguageModel
from sgsd_lightning.prompts.chat import fill
from sgsd_lightning.skills.bank import Mistake, Skill
from sgsd_lightning.skills.growth.answer_parsing import json_repair, parse_extraction, parse_merge
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.merge_answer import text_fields
from sgsd_lightning.skills.growth.prompt_files import load_prompts
from sgsd_lightning.skills.growth.writer import Reject, SkillWriter, Written
from sgsd_lightning.types import Messages
from sgsd_lightning.types.arguments import require_at_least


class LanguageModelWriter(SkillWriter):
    """Lets a language model write skills and mistakes.

    Args:
        language_model: the model to ask.
        domain: the subject of the problems in a phrase; None takes ``domain.txt`` of the prompts.
        prompts_folder: a folder whose files replace the built-in ones of the same name (see ``skills/growth/prompts``).
        max_completion_chars: longer completions are shown without their middle; at least 100.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        domain: str | None = None,
        prompts_folder: str | None = None,
        max_completion_chars: int = 12_000,
    ) -> None:
        require_at_least(100, "writer.max_completion_chars", max_completion_chars)
        json_repair()  # fail now, not after paid calls
        self.computes_here = language_model.computes_here
        self.prompts = load_prompts(prompts_folder, domain)
        self.language_model = language_model.for_prompts(self.prompts.digest)
        self.max_completion_chars = max_completion_chars

    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        chats = [_chat(self._extraction_prompt(memory)) for memory in memories]
        for index, answer in self.language_model.answers(chats, deadline):
            memory = memories[index]
            sources = (memory.memory_id,)
            if answer.text is None:
                yield Written(sources=sources, rejects=(Reject(sources=sources, reason=f"{answer.error}", text=""),))
                continue
            drafts, rejects = parse_extraction(answer.text, Skill if memory.is_success else Mistake, sources)
            yield Written(sources=sources, drafts=drafts, rejects=rejects)

    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        shown = tuple(item.item_id for item in items)
        template = self.prompts.merge_skills if isinstance(items[0], Skill) else self.prompts.merge_mistakes
        chat = _chat(fill(template, items="\n".join(_list_item(item) for item in items)))
        for _, answer in self.language_model.answers([chat], deadline):
            if answer.text is None:
                return Written(sources=shown, rejects=(Reject(sources=shown, reason=f"{answer.error}", text=""),))
            drafts, rejects = parse_merge(answer.text, type(items[0]), shown)
            return Written(sources=shown, drafts=drafts, rejects=rejects)
        return Written(sources=shown, rejects=(Reject(sources=shown, reason="no answer came", text=""),))

    def first_prompt(self, memories: Sequence[Memory]) -> str:
        """Return the prompt for the first memory."""
        return self._extraction_prompt(memories[0])

    def attach(self, model: Any, tokenizer: Any) -> None:
        self.language_model.attach(model, tokenizer)

    def session(self) -> AbstractContextManager[None]:
        return self.language_model.session()

    def _extraction_prompt(self, memory: Memory) -> str:
        return fill(
            self.prompts.extract_skills if memory.is_success else self.prompts.extract_mistakes,
            problem=memory.problem,
            completion=without_middle(memory.completion, self.max_completion_chars),
            reference_answer=memory.reference_answer,
        )


def without_middle(text: str, max_characters: int) -> str:
    """Return a text of at most ``max_characters``: the beginning and the end of a longer one."""
    if len(text) <= max_characters:
        return text
    half = max_characters // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _chat(prompt: str) -> Messages:
    return [{"role": "user", "content": prompt}]


def _list_item(item: Skill | Mistake) -> str:
    texts = "; ".join(f"{name}: {getattr(item, name)}" for name in text_fields(type(item)))
    return f"[{item.item_id}] {texts}"
