"""The +Skill variants: what the student's training prompts show, its teachers read too, and evaluation does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.callbacks.alignment_audit import audit
from sgsd_lightning.contexts import PlainPrompt, ProblemContextBuilder, student_guidance
from sgsd_lightning.data import ProblemDataModule, ProblemSource
from sgsd_lightning.training import Learner, RunCallback, StepReport
from sgsd_lightning.training.preflight import check_teacher_prompts, keep_fitting_problems
from sgsd_lightning.types import JudgedRollout, Problem, Rollout, TeacherContext
from tests.support.tiny import PROBLEMS, judged, tiny_module, tiny_rollout


class Hints(ProblemContextBuilder):
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        return [
            [TeacherContext(text=f"{text} {p.problem_id}", weight=1 / len(self.texts)) for text in self.texts]
            for p in problems
        ]


def ready(**settings: object) -> Learner:
    learner = tiny_module(**settings).learner
    learner.load_tokenizer()
    return learner


def text_of(learner: Learner, ids: Sequence[int]) -> str:
    return str(learner.tokenizer.decode(list(ids)))


class Witness(RunCallback):
    """Keeps the rollouts of training and of evaluation."""

    def __init__(self) -> None:
        self.trained: list[Rollout] = []
        self.evaluated: list[Rollout] = []

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        self.trained += [entry.rollout for step in report.learner_steps for entry in step.record.judged]

    def on_evaluated(
        self, trainer: Trainer, module: LightningModule, stage: str, judged: Sequence[JudgedRollout]
    ) -> None:
        self.evaluated += [entry.rollout for entry in judged]


def test_the_student_is_shown_one_block_and_its_teachers_the_same_before_their_own() -> None:
    learner = ready(guidance=Hints("first hint", "second hint"), contexts=Hints("privileged"))
    problem = PROBLEMS[0]
    guidance = learner.rollouter.guidance_for([problem])[problem.problem_id]
    student = text_of(learner, learner.prompts.student(learner.tokenizer, problem, guidance))
    block = f"first hint {problem.problem_id}\n\nsecond hint {problem.problem_id}"
    assert block in student
    assert "privileged" not in student
    (teacher,) = learner.contexts.build([problem])[0]
    shown = text_of(learner, learner.prompts.teacher(learner.tokenizer, problem, teacher, guidance))
    assert f"{block}\n\nprivileged {problem.problem_id}" in shown
    plain = text_of(learner, learner.prompts.evaluation(learner.tokenizer, problem))
    assert "hint" not in plain
    assert plain == text_of(learner, learner.prompts.student(learner.tokenizer, problem))


def test_a_plain_teacher_reads_what_the_student_does() -> None:
    learner = ready(guidance=Hints("hint"), contexts=PlainPrompt())
    problem = PROBLEMS[0]
    guidance = learner.rollouter.guidance_for([problem])[problem.problem_id]
    (teacher,) = learner.contexts.build([problem])[0]
    student = learner.prompts.student(learner.tokenizer, problem, guidance)
    assert learner.prompts.teacher(learner.tokenizer, problem, teacher, guidance) == student


def test_the_teachers_and_the_preflight_count_the_block() -> None:
    learner = ready(guidance=Hints("hint " * 40), contexts=Hints("privileged"))
    plain = ready(contexts=Hints("privileged"))
    own = [
        judged(tiny_rollout(problem, [1], [2]), outcome) for problem, outcome in zip(PROBLEMS, (1, -1), strict=False)
    ]
    with_block, without = (who.teach(own, {who.name: own}) for who in (learner, plain))
    for shown, unshown in zip(with_block.rows, without.rows, strict=True):
        assert shown.teachers[0][0].num_input_tokens > unshown.teachers[0][0].num_input_tokens + 150
    # a completion of one id, which is not read
    limit = without.rows[0].teachers[0][0].num_input_tokens + 50
    learner.prompts.max_prompt_tokens = plain.prompts.max_prompt_tokens = limit
    fitting = (PROBLEMS[:2], learner.prompts, learner.tokenizer, "train")
    assert keep_fitting_problems(*fitting) == PROBLEMS[:2]
    with pytest.raises(ValueError, match=r"2 of 2 train prompts exceed prompts.max_prompt_tokens"):
        keep_fitting_problems(*fitting, learner.rollouter)
    check_teacher_prompts(PROBLEMS[:2], plain)
    with pytest.raises(ValueError, match=r"2 teacher prompts exceed"):
        check_teacher_prompts(PROBLEMS[:2], learner)


def test_without_contexts_there_is_no_block() -> None:
    assert student_guidance(None, PROBLEMS[:2]) == {problem.problem_id: None for problem in PROBLEMS[:2]}
    assert set(student_guidance(PlainPrompt(), PROBLEMS[:2]).values()) == {None}


def test_training_samples_under_the_block_and_evaluation_without(tmp_path: Path) -> None:
    class Two(ProblemSource):
        def load(self) -> list[Problem]:
            return PROBLEMS[:2]

    module = tiny_module(guidance=Hints("hint"), contexts=Hints("privileged"))
    witness = Witness()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[witness],
        max_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=ProblemDataModule(train=Two(), validation=Two(), batch_size=2))
    assert len(witness.trained) == len(witness.evaluated) / 4 == 2
    for rollout in witness.trained:
        assert f"hint {rollout.problem.problem_id}" in text_of(module.learner, rollout.prompt_ids)
        assert f"hint {rollout.problem.problem_id}" in rollout.messages[0]["content"]
    for rollout in witness.evaluated:
        assert "hint" not in text_of(module.learner, rollout.prompt_ids)
    assert f"hint {PROBLEMS[0].problem_id}" in str(audit(module, PROBLEMS[0]))
