"""The +Skill variants: what the student's training prompts show, its teachers read too, and evaluation does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from sgsd_lightning.contexts.pool import build_teacher_pool

from sgsd_lightning.callbacks.alignment_audit import audit
from sgsd_lightning.contexts import ContextBuilder, PlainPrompt, guidance_of
from sgsd_lightning.data import ProblemDataModule, ProblemSource
from sgsd_lightning.training.preflight import check_teacher_prompts, keep_fitting_problems
from sgsd_lightning.types import Problem, TeacherContext
from tests.support.tiny import PROBLEMS, tiny_module, tiny_rollout, verdict


class Hints(ContextBuilder):
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [
            [TeacherContext(text=f"{text} {p.problem_id}", weight=1 / len(self.texts)) for text in self.texts]
            for p in problems
        ]


def ready(**settings: object):  # type: ignore[no-untyped-def]
    module = tiny_module(**settings)
    module.tokenizer = module.policy.load_tokenizer()
    return module


def text_of(module, ids: Sequence[int]) -> str:  # type: ignore[no-untyped-def]
    return str(module.tokenizer.decode(list(ids)))


def test_the_student_is_shown_one_block_and_its_teachers_the_same_before_their_own() -> None:
    module = ready(student_contexts=Hints("first hint", "second hint"), contexts=Hints("privileged"))
    problem = PROBLEMS[0]
    guidance = guidance_of(module.student_contexts, [problem])[problem.problem_id]
    student = text_of(module, module.prompts.student(module.tokenizer, problem, guidance))
    block = f"first hint {problem.problem_id}\n\nsecond hint {problem.problem_id}"
    assert block in student
    assert "privileged" not in student
    (teacher,) = module.contexts.build([problem])[0]
    shown = text_of(module, module.prompts.teacher(module.tokenizer, problem, teacher, guidance))
    assert f"{block}\n\nprivileged {problem.problem_id}" in shown
    plain = text_of(module, module.prompts.evaluation(module.tokenizer, problem))
    assert "hint" not in plain
    assert plain == text_of(module, module.prompts.student(module.tokenizer, problem))


def test_a_plain_teacher_reads_what_the_student_does() -> None:
    module = ready(student_contexts=Hints("hint"), contexts=PlainPrompt())
    problem = PROBLEMS[0]
    guidance = guidance_of(module.student_contexts, [problem])[problem.problem_id]
    (teacher,) = module.contexts.build([problem])[0]
    student = module.prompts.student(module.tokenizer, problem, guidance)
    assert module.prompts.teacher(module.tokenizer, problem, teacher, guidance) == student


def test_the_teacher_pool_and_the_preflight_count_the_block() -> None:
    module = ready(student_contexts=Hints("hint " * 40), contexts=Hints("privileged"))
    rollouts = [tiny_rollout(problem, [1], [2]) for problem in PROBLEMS[:2]]
    arguments = (rollouts, [verdict(1), verdict(-1)], module.contexts, module.prompts, module.tokenizer)
    with_block = build_teacher_pool(*arguments, module.student_contexts)
    without = build_teacher_pool(*arguments)
    for shown, plain in zip(with_block.prompts, without.prompts, strict=True):
        assert len(shown[0]) > len(plain[0]) + 150
    module.prompts.max_prompt_tokens = len(without.prompts[0][0]) + 50
    fitting = (PROBLEMS[:2], module.prompts, module.tokenizer, "train")
    assert keep_fitting_problems(*fitting) == PROBLEMS[:2]
    with pytest.raises(ValueError, match=r"2 of 2 train prompts exceed prompts.max_prompt_tokens"):
        keep_fitting_problems(*fitting, module.student_contexts)
    checked = (PROBLEMS[:2], module.contexts, module.prompts, module.tokenizer)
    check_teacher_prompts(*checked)
    with pytest.raises(ValueError, match=r"2 teacher prompts exceed"):
        check_teacher_prompts(*checked, module.student_contexts)


def test_without_contexts_there_is_no_block() -> None:
    assert guidance_of(None, PROBLEMS[:2]) == {problem.problem_id: None for problem in PROBLEMS[:2]}
    assert set(guidance_of(PlainPrompt(), PROBLEMS[:2]).values()) == {None}


def test_training_samples_under_the_block_and_evaluation_without(tmp_path: Path) -> None:
    class Two(ProblemSource):
        def load(self) -> list[Problem]:
            return PROBLEMS[:2]

    module = tiny_module(student_contexts=Hints("hint"), contexts=Hints("privileged"))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=ProblemDataModule(train=Two(), validation=Two(), batch_size=2))
    assert module.step_record is not None
    for rollout in module.step_record.rollouts:
        assert f"hint {rollout.problem.problem_id}" in text_of(module, rollout.prompt_ids)
    assert module.evaluation_record
    for rollout, _ in module.evaluation_record:
        assert "hint" not in text_of(module, rollout.prompt_ids)
    assert f"hint {PROBLEMS[0].problem_id}" in str(audit(module, PROBLEMS[0]))
