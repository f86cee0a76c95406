"""Small real parts for tests of the whole step: a random model, two-line contexts, a verifier that looks at bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sgsd_lightning.contexts import ProblemContextBuilder
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import LoraSettings, RandomPolicy
from sgsd_lightning.rollouts import SingleTurn
from sgsd_lightning.training import ScoringSettings
from sgsd_lightning.types import (
    Completion,
    FinishReason,
    JudgedRollout,
    Problem,
    Rollout,
    SamplingSettings,
    ScoreRow,
    TeacherContext,
    TokenSequence,
    Turn,
    Verdict,
)
from sgsd_lightning.verifiers import Grade, Verifier

PROBLEMS = [Problem(problem_id=f"p{i}", text=f"{i} + {i + 1} = ?", answer=str(2 * i + 1)) for i in range(12)]


class NumberedContexts(ProblemContextBuilder):
    """``num_contexts`` different texts a problem, with unequal weights."""

    def __init__(self, num_contexts: int = 3) -> None:
        self.num_contexts = num_contexts

    def build(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        total = self.num_contexts * (self.num_contexts + 1) / 2
        return [
            [
                TeacherContext(
                    text=f"Hint {k} " + "x" * k + problem.text, weight=(k + 1) / total, source_ids=(f"c{k}",)
                )
                for k in range(self.num_contexts)
            ]
            for problem in problems
        ]


class EvenSum(Verifier):
    """Accepts a completion whose ids add up to an even number: deterministic and about half the time right."""

    def grade(self, rollout: Rollout) -> Grade:
        is_even = sum(rollout.completion_ids) % 2 == 0
        return Grade(reward=float(is_even), answer=str(is_even))


def tiny_policy(lora: LoraSettings | None = None, **settings: object) -> RandomPolicy:
    """Two layers, width 32, bytes."""
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 64}
    return RandomPolicy(**{**sizes, **settings}, lora=lora)  # type: ignore[arg-type]


ROLLOUTER_SETTINGS = ("engine", "sampling", "group_size", "guidance")
SCORING_SETTINGS = ("teacher_tokens_per_forward", "head_implementation", "train_eos")


def tiny_module(**settings: object) -> SelfDistillation:
    """A module over tiny parts; any argument of `SelfDistillation` replaces its part.

    Those of `SingleTurn` and `ScoringSettings` may be given as they are.
    """
    rollouter = {name: settings.pop(name) for name in ROLLOUTER_SETTINGS if name in settings}
    scoring = {name: settings.pop(name) for name in SCORING_SETTINGS if name in settings}
    defaults: dict[str, object] = {
        "policy": tiny_policy(),
        "contexts": NumberedContexts(),
        "objective": GatedPolarity(),
        "verifier": EvenSum(truncated_rollouts="failure"),
        "rollouts": SingleTurn(**{"sampling": SamplingSettings(max_new_tokens=12), **rollouter}),  # type: ignore[arg-type]
        "scoring": ScoringSettings(**scoring),  # type: ignore[arg-type]
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    }
    return SelfDistillation(**{**defaults, **settings})  # type: ignore[arg-type]


def loaded_module(**settings: object) -> SelfDistillation:
    """`tiny_module` with its tokenizer and model loaded; no trainer needed."""
    module = tiny_module(**settings)
    module.learner.load_tokenizer()
    module.configure_model()
    return module


def tiny_completion(ids: Sequence[int], finish_reason: FinishReason = FinishReason.STOPPED) -> Completion:
    """A completion that nobody sampled."""
    return Completion(
        ids=tuple(ids),
        finish_reason=finish_reason,
        logprobs=torch.zeros(len(ids)),
        sampling_logprobs=torch.zeros(len(ids)),
        kept_mass=torch.ones(len(ids)),
    )


def tiny_rollout(
    problem: Problem,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    *,
    text: str = "",
    finish_reason: FinishReason = FinishReason.STOPPED,
    sample_index: int = 0,
) -> Rollout:
    """A rollout of one turn that nobody sampled."""
    completion = tiny_completion(completion_ids, finish_reason)
    return Rollout(
        problem=problem,
        turns=(Turn(prompt_ids=tuple(prompt_ids), completion=completion, text=text),),
        messages=({"role": "user", "content": problem.text}, {"role": "assistant", "content": text}),
        sample_index=sample_index,
    )


def tiny_row(
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    teacher_prompts: Sequence[Sequence[int]] = (),
    context_weight: Sequence[float] | None = None,
    *,
    group: int = 0,
    loss_mask: torch.Tensor | None = None,
    sampled_logprob: torch.Tensor | None = None,
) -> ScoreRow:
    """One prompt, one completion, and a prompt per teacher."""
    num_ids, num_teachers = len(completion_ids), len(teacher_prompts)
    return ScoreRow(
        student=(TokenSequence.causal(prompt_ids, completion_ids),),
        teachers=tuple((TokenSequence.causal(prompt, completion_ids),) for prompt in teacher_prompts),
        context_weight=tuple(context_weight or (1 / num_teachers for _ in teacher_prompts)),
        group=group,
        loss_mask=torch.ones(num_ids, dtype=torch.bool) if loss_mask is None else loss_mask,
        sampled_logprob=torch.zeros(num_ids) if sampled_logprob is None else sampled_logprob,
        step_index=torch.zeros(num_ids, dtype=torch.int64),
    )


def verdict(outcome: int) -> Verdict:
    """A verdict of that outcome."""
    return Verdict(reward=float(outcome > 0), accepted=outcome > 0, answer=None, outcome=outcome)


def judged(rollout: Rollout, outcome: int) -> JudgedRollout:
    """A rollout with a verdict of that outcome."""
    return JudgedRollout(rollout=rollout, verdict=verdict(outcome))
