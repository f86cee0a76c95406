"""Checks what a user's own parts return, and says what is expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.metrics.measurements import Largest, Mean, Total
from sgsd_lightning.objectives import Objective, ObjectiveResult
from sgsd_lightning.types import JudgedRollout, Rollout, TeacherContext, TeacherStances, Verdict
from sgsd_lightning.verifiers import Verifier


def judge(verifier: Verifier, rollouts: Sequence[Rollout]) -> list[JudgedRollout]:
    """What a verifier says of rollouts.

    Raises:
        ValueError: if its ``verify`` does not return the rollouts in order, each with a `Verdict`.
    """
    judged = verifier.verify(rollouts)
    who = f"verifier {type(verifier).__name__}: verify must return one JudgedRollout per rollout, in their order"
    if not isinstance(judged, list | tuple) or not all(isinstance(entry, JudgedRollout) for entry in judged):
        raise ValueError(f"{who}; got {_described(judged)}")
    if [_place(entry.rollout) for entry in judged] != [_place(rollout) for rollout in rollouts]:
        raise ValueError(f"{who}; got {len(judged)} of other rollouts or in another order, for {len(rollouts)}")
    for entry in judged:
        if not isinstance(entry.verdict, Verdict) or entry.verdict.outcome not in (-1, 0, 1):
            raise ValueError(f"{who}, with a Verdict whose outcome is -1, 0 or 1; got {entry.verdict!r}")
    return list(judged)


def check_contexts(builder: ContextBuilder, contexts: Any, num_rollouts: int) -> None:
    """Contexts are one list of teachers per rollout, whose weights add up to 1.

    Raises:
        ValueError: if they are not.
    """
    who = f"contexts {type(builder).__name__} must give one list of TeacherContext per rollout"
    if not isinstance(contexts, list | tuple) or len(contexts) != num_rollouts:
        raise ValueError(f"{who}; got {_described(contexts)} for {num_rollouts} rollouts")
    for of_rollout in contexts:
        if not isinstance(of_rollout, list | tuple) or not all(isinstance(c, TeacherContext) for c in of_rollout):
            raise ValueError(f"{who}; got {_described(of_rollout)}")
        weights = [context.weight for context in of_rollout]
        if weights and not (min(weights) >= 0 and math.isclose(sum(weights), 1.0, abs_tol=1e-3)):
            raise ValueError(f"{who}, whose weights are not negative and add up to 1; got weights {weights}")


def check_result(objective: Objective, result: Any) -> None:
    """An objective's result is a scalar loss with a gradient, metrics and possibly stances.

    Raises:
        ValueError: if it is not.
    """
    who = f"objective {type(objective).__name__} must return an ObjectiveResult"
    if not isinstance(result, ObjectiveResult):
        raise ValueError(f"{who}; got {_described(result)}")
    loss = result.loss
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        shape = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else _described(loss)
        raise ValueError(f"{who} whose loss is a scalar tensor, the mean over the rollouts; got {shape}")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise ValueError(f"{who} whose loss has a gradient; compute it from scores.student_logprob, without detaching")
    if not isinstance(result.metrics, Mapping):
        raise ValueError(f"{who} whose metrics are a mapping from names; got {_described(result.metrics)}")
    for name, value in result.metrics.items():
        is_scalar = isinstance(value, Tensor) and value.numel() == 1
        if not is_scalar and not isinstance(value, Mean | Largest | Total):
            raise ValueError(f"{who} whose metrics are scalar tensors or measurements; got {name}: {_described(value)}")
    if result.stances is not None and not isinstance(result.stances, TeacherStances):
        raise ValueError(f"{who} whose stances are TeacherStances or None; got {_described(result.stances)}")


def _place(rollout: Rollout) -> tuple[str, int]:
    return rollout.problem.problem_id, rollout.sample_index


def _described(value: Any) -> str:
    if isinstance(value, list | tuple):
        kinds = sorted({type(entry).__name__ for entry in value})
        return f"{type(value).__name__} of {len(value)}" + (f" ({', '.join(kinds)})" if kinds else "")
    return f"{type(value).__name__} {value!r}"[:80]
