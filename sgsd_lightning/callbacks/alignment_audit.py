"""The alignment audit: what student, teachers and evaluation really read, at the token where the answer starts.

Silent misalignment (templates, special tokens, masks) is what users of self-distillation complain of most. This prints
one problem's prompts with the ids at their boundary and warns of the known traps, before any step is taken.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sgsd_lightning.callbacks.prompt_arrival import check_arrival
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.encoding import reserved_strings
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.prompts.chat import Prompt, PromptRole
from sgsd_lightning.texts.shown import printable
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.types import Problem, Rollout, TeacherContext, TokenScores

log = logging.getLogger(__name__)

NUM_BOUNDARY_TOKENS = 8
LARGE_FIRST_LOG_RATIO = 3.0


@dataclass(kw_only=True, slots=True)
class AuditReport:
    """Sections for people and warnings for everybody; as text, without control characters."""

    sections: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        warnings = [f"WARNING: {warning}" for warning in self.warnings] or ["No warnings."]
        return printable("\n\n".join([*self.sections, "\n".join(warnings)]))


def audit(module: SelfDistillation, problem: Problem) -> AuditReport:
    """Render one problem for every role, sample one completion, score it, and say what looks wrong.

    The module must have been set up and its model configured. Sampling is seeded and leaves no trace in training.
    """
    report = AuditReport()
    learner = module.learner
    with torch.no_grad():
        own = learner.judge(learner.sample([problem], module.global_step)[:1])
        taught = learner.teach(own, {learner.name: own})
        scores = learner.score(taught)
    rollout, contexts = own[0].rollout, list(taught.contexts[0]) if taught.contexts else []
    guidance = learner.rollouter.guidance_for([problem])[problem.problem_id]
    shown: dict[PromptRole, tuple[Prompt, TeacherContext | None]] = {
        PromptRole.STUDENT: (learner.prompts.student_prompt(problem, guidance), None)
    }
    if contexts:
        shown[PromptRole.TEACHER] = (learner.prompts.teacher_prompt(problem, contexts[0], guidance), contexts[0])
    shown[PromptRole.EVALUATION] = (learner.prompts.evaluation_prompt(problem), None)
    for role, (prompt, context) in shown.items():
        ids = rollout.prompt_ids if role is PromptRole.STUDENT else learner.prompts.render(learner.tokenizer, *prompt)
        report.sections.append(_describe_prompt(learner, role, ids))
        report.warnings += _prompt_warnings(learner, role, ids)
        report.warnings += check_arrival(
            learner.tokenizer, learner.prompts, prompt, _parts(learner, problem, guidance, context)
        )
    report.warnings += _template_warnings(learner)
    report.sections.append(_describe_mask(learner, rollout, scores))
    report.sections.append(_describe_first_token(learner, rollout, contexts, scores))
    report.warnings += _score_warnings(rollout, scores)
    return report


def _parts(
    learner: Learner, problem: Problem, guidance: TeacherContext | None, context: TeacherContext | None
) -> dict[str, str]:
    """What a prompt is made of, by name."""
    return {
        "problem": problem.text,
        "system text": learner.prompts.system_text or "",
        "student's guidance": guidance.text if guidance else "",
        "privileged text": context.text if context else "",
    }


def _describe_prompt(learner: Learner, role: PromptRole, prompt_ids: Sequence[int]) -> str:
    tokenizer = learner.tokenizer
    boundary = prompt_ids[-NUM_BOUNDARY_TOKENS:]
    pieces = " ".join(f"{token_id}={tokenizer.decode([token_id])!r}" for token_id in boundary)
    control = Counter(map(tokenizer.decode, reserved_strings(tokenizer).control_ids_of(prompt_ids)))
    return "\n".join(
        [
            f"== {role} prompt: {len(prompt_ids)} tokens, template arguments {learner.prompts.template_args[role]} ==",
            tokenizer.decode(list(prompt_ids)),
            f"-- the completion starts after: {pieces}",
            f"-- control tokens, special ones and others: {dict(control)}",
        ]
    )


def _prompt_warnings(learner: Learner, role: PromptRole, prompt_ids: Sequence[int]) -> list[str]:
    warnings = []
    bos = learner.tokenizer.bos_token_id
    if bos is not None and list(prompt_ids[:2]) == [bos, bos]:
        warnings.append(f"the {role} prompt starts with two beginning-of-sequence tokens: the template adds one itself")
    if learner.prompts.is_over_long(tuple(prompt_ids)):
        warnings.append(
            f"the {role} prompt has {len(prompt_ids)} tokens, over prompts.max_prompt_tokens = "
            f"{learner.prompts.max_prompt_tokens}; it is {learner.prompts.over_long_prompts}d, never cut"
        )
    return warnings


def _template_warnings(learner: Learner) -> list[str]:
    student = learner.prompts.template_args[PromptRole.STUDENT]
    return [
        f"{role} and student use different chat-template arguments ({other} and {student}): "
        f"the completion is {'scored' if role is PromptRole.TEACHER else 'evaluated'} in a format it was not sampled in"
        for role, other in learner.prompts.template_args.items()
        if other != student
    ]


def _describe_mask(learner: Learner, rollout: Rollout, scores: TokenScores) -> str:
    kept = scores.loss_mask[0].tolist() if len(scores.loss_mask) else []
    pieces = [learner.tokenizer.decode([token_id]) for token_id in rollout.completion_ids]
    dropped = Counter(piece for piece, is_kept in zip(pieces, kept, strict=False) if not is_kept)
    return "\n".join(
        [
            f"== loss mask: {sum(kept)} of {len(pieces)} sampled tokens count ==",
            rollout.completion_text,
            f"-- dropped: {dict(dropped)}",
            f"-- finish reason: {rollout.finish_reason}",
        ]
    )


def _describe_first_token(
    learner: Learner, rollout: Rollout, contexts: Sequence[TeacherContext], scores: TokenScores
) -> str:
    ratios = _first_log_ratios(scores)
    first = learner.tokenizer.decode([rollout.completion_ids[0]])
    lines = [f"== log-ratio (teacher - student) of the first completion token {first!r}, nats =="]
    if contexts:
        lines += [
            f"{'+'.join(context.source_ids) or 'context'}: {ratio:+.3f} (weight {context.weight:.3f})"
            for context, ratio in zip(contexts, ratios.tolist(), strict=False)
        ]
    return "\n".join(lines)


def _first_log_ratios(scores: TokenScores) -> Tensor:
    """[K]; empty where nothing was scored."""
    if not scores.teacher_logprob.numel():
        return torch.zeros(0)
    return scores.teacher_logprob[0, :, 0] - scores.student_logprob[0, 0]


def _score_warnings(rollout: Rollout, scores: TokenScores) -> list[str]:
    warnings = []
    ratios = _first_log_ratios(scores)
    if ratios.numel() and ratios.abs().min() > LARGE_FIRST_LOG_RATIO:
        warnings.append(
            f"every teacher disagrees with the first completion token by more than {LARGE_FIRST_LOG_RATIO} nats: "
            "student and teacher prompts probably end differently"
        )
    if len(scores.loss_mask) and not bool(scores.loss_mask[0].any()):
        warnings.append("the loss mask drops every token of the sampled completion")
    if len(scores.student_logprob):
        length = len(rollout.completion_ids)
        gap = (scores.student_logprob[0, :length].cpu() - rollout.logprobs).abs().max().item()
        if gap > 0.1:
            warnings.append(
                f"sampler and scorer disagree by up to {gap:.3f} nats on the same tokens: "
                "they do not compute the same model"
            )
    return warnings


class AlignmentAudit(Callback):
    """Writes ``prompt_audit.txt`` into the run folder and logs its warnings.

    Args:
        enabled: off skips it.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not self.enabled or not isinstance(data, ProblemDataModule):
            return
        assert isinstance(pl_module, SelfDistillation)
        report = audit(pl_module, data.problems["train"][0])
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "prompt_audit.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(report) + "\n", encoding="utf-8")
        for warning in report.warnings:
            log.warning("prompt audit: %s (see %s)", warning, path)
