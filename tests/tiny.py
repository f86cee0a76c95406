"""Small real parts for tests of the whole step: a random model, two-line contexts, a verifier that looks at bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import LoraSettings, RandomPolicy
from sgsd_lightning.types import FinishReason, Problem, Rollout, SamplingSettings, TeacherContext, Verdict
from sgsd_lightning.verifiers import Grade, Verifier

PROBLEMS = [Problem(problem_id=f"p{i}", text=f"{i} + {i + 1} = ?", answer=str(2 * i + 1)) for i in range(12)]


class NumberedContexts(ContextBuilder):
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


def tiny_module(**settings: object) -> SelfDistillation:
    """A module over tiny parts; any argument of `SelfDistillation` replaces its part."""
    defaults: dict[str, object] = {
        "policy": tiny_policy(),
        "contexts": NumberedContexts(),
        "objective": GatedPolarity(),
        "verifier": EvenSum(truncated_rollouts="failure"),
        "sampling": SamplingSettings(max_new_tokens=12),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    }
    return SelfDistillation(**{**defaults, **settings})  # type: ignore[arg-type]


def tiny_rollout(problem: Problem, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Rollout:
    """A rollout that nobody sampled."""
    length = len(completion_ids)
    return Rollout(
        problem=problem,
        prompt_ids=tuple(prompt_ids),
        completion_ids=tuple(completion_ids),
        completion_text="",
        finish_reason=FinishReason.STOPPED,
        logprobs=torch.zeros(length),
        sampling_logprobs=torch.zeros(length),
        kept_mass=torch.ones(length),
    )


def verdict(outcome: int) -> Verdict:
    """A verdict of that outcome."""
    return Verdict(reward=float(outcome > 0), answer=None, outcome=outcome)
