"""A writer that asks a language model: what it asks, and what it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sgsd_lightning.language_models import Answer, CachedModel, LanguageModel
from sgsd_lightning.skills import Mistake, Skill
from sgsd_lightning.skills.growth import LanguageModelWriter
from sgsd_lightning.skills.growth.language_model_writer import without_middle
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.prompt_files import load_prompts
from sgsd_lightning.types import Messages

SKILL = {"title": "Count twice", "principle": "Count in two ways.", "when_to_apply": "A set is counted."}
MISTAKE = {"description": "Counted once.", "why_it_happens": "Haste.", "how_to_avoid": "Count again."}


class Scripted(LanguageModel):
    """Answers as it is told, the last chat first."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def identity(self) -> dict[str, str]:
        return {"model": "scripted"}

    def answers(
        self, chats: Sequence[Messages], deadline: float | None = None, *, attempt: int = 0
    ) -> Iterator[tuple[int, Answer]]:
        for index in reversed(range(len(chats))):
            (message,) = chats[index]
            self.asked.append(message["content"])
            yield index, self.answer(message["content"])


def memory(memory_id: str, is_success: bool) -> Memory:
    return Memory(
        memory_id=memory_id,
        problem_id="p",
        problem="How many {items} are {there}?",
        reference_answer="forty-two",
        completion="I count {problem} 41.",
        answer="41",
        reward=0.0,
        outcome=1 if is_success else -1,
        finish_reason="stopped",
    )


def both(prompt: str) -> Answer:
    return Answer(text=json.dumps({"skills": [SKILL], "mistakes": [MISTAKE]}))


def test_a_success_is_asked_for_skills_and_a_failure_for_mistakes() -> None:
    model = Scripted(both)
    written = list(LanguageModelWriter(model).extract([memory("right", True), memory("wrong", False)]))
    assert [part.sources for part in written] == [("wrong",), ("right",)]
    assert [(draft.kind, dict(draft.texts)) for part in written for draft in part.drafts] == [
        (Mistake, MISTAKE),
        (Skill, SKILL),
    ]
    about_failure, about_success = model.asked
    assert "forty-two" in about_failure
    assert "forty-two" not in about_success


def test_placeholders_are_filled_once_and_other_braces_stand() -> None:
    model = Scripted(both)
    list(LanguageModelWriter(model, domain="knots {problem}").extract([memory("right", True)]))
    (asked,) = model.asked
    assert "How many {items} are {there}?" in asked
    assert "I count {problem} 41." in asked
    assert '{"skills": [{"title"' in asked
    assert "{domain}" not in asked
    assert "{completion}" not in asked


def test_a_call_that_fails_is_a_reject_of_that_memory_alone() -> None:
    writer = LanguageModelWriter(Scripted(lambda prompt: Answer(error="timed out") if "wrong" in prompt else both("")))
    shown = [memory("right", True), memory("wrong", False)]
    written = {part.sources: part for part in writer.extract(shown)}
    assert written[("right",)].drafts
    failing = LanguageModelWriter(Scripted(lambda prompt: Answer(error="timed out")))
    (part,) = failing.extract([memory("right", True)])
    assert [(reject.reason, reject.text) for reject in part.rejects] == [("timed out", "")]


def test_a_merge_shows_ids_and_texts_and_takes_the_answer() -> None:
    items = [Skill(skill_id=f"gen_{n}", title=f"t{n}", principle=f"p{n}", when_to_apply=f"w{n}") for n in range(3)]
    model = Scripted(lambda prompt: Answer(text=json.dumps({"skills": [{**SKILL, "sources": ["gen_0", "gen_2"]}]})))
    written = LanguageModelWriter(model).merge(items)
    assert [draft.sources for draft in written.drafts] == [("gen_0", "gen_2")]
    assert "[gen_1] title: t1; principle: p1; when_to_apply: w1" in model.asked[0]


def test_a_long_completion_loses_its_middle_and_says_so() -> None:
    shown = without_middle("a" * 600 + "b" * 600, 1000)
    assert shown.startswith("a" * 500 + "\n[... 200 characters left out ...]\n")
    assert shown.endswith("b" * 500)
    assert without_middle("short", 1000) == "short"


def test_a_users_folder_replaces_prompts_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "extract_skills.md").write_text("{domain} | {problem} | {completion}")
    prompts = load_prompts(str(tmp_path), domain="chess")
    assert prompts.extract_skills == "chess | {problem} | {completion}"
    assert prompts.merge_skills == load_prompts(domain="chess").merge_skills


def test_a_prompt_that_lacks_a_placeholder_is_refused_by_file(tmp_path: Path) -> None:
    (tmp_path / "merge_skills.md").write_text("Unite them.")
    with pytest.raises(ValueError, match=r"merge_skills.md: the placeholder \{items\} is missing"):
        load_prompts(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"prompts_folder .*nowhere is not a folder"):
        load_prompts(str(tmp_path / "nowhere"))


def test_a_cache_keeps_the_answers_to_other_prompt_files_apart(tmp_path: Path) -> None:
    (tmp_path / "merge_skills.md").write_text("Unite these: {items}")
    path = str(tmp_path / "answers.jsonl")
    shown = [memory("right", True), memory("wrong", False)]
    num_asked = []
    for folder in (None, None, str(tmp_path)):
        model = Scripted(both)
        written = list(LanguageModelWriter(CachedModel(model, path), prompts_folder=folder).extract(shown))
        assert {draft.kind for part in written for draft in part.drafts} == {Skill, Mistake}
        num_asked.append(len(model.asked))
    assert num_asked == [2, 0, 2]
