"""Any reward function of the signature that TRL's trainers call, as a verifier."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sgsd_lightning.types import Problem, Rollout
from sgsd_lightning.types.arguments import require, require_choice
from sgsd_lightning.verifiers.base import Grade, TruncatedRollouts, Verifier

CompletionForm = Literal["messages", "text"]


class RewardFunction(Verifier):
    """Grades with a function ``f(completions, **columns) -> list of floats or None``, as `trl.GRPOTrainer` takes them.

    It is called once per batch with keyword arguments: ``prompts``, ``completions`` and ``completion_ids``, then one
    list per column of the data set, in the order of the completions: the problem's fields (``problem``, ``answer``,
    ``solution``, ``problem_id``) and its other columns. Only arguments that the function accepts are passed. None means
    that this completion could not be judged.

    Args:
        function: its import path, such as ``trl.rewards.accuracy_reward``.
        columns: further names for columns, such as ``{solution: answer}`` where a function expects the published answer
            under ``solution``.
        completions: ``messages``: each completion is a chat of one assistant message, as TRL passes for chat prompts;
            ``text``: a text.
        accept_above: a completion counts as right when its reward is larger than this.
        truncated_rollouts: see `Verifier`.

    Raises:
        ValueError: for an import path without a plain function, or an ``accept_above`` that is not finite.
    """

    def __init__(
        self,
        function: str,
        columns: dict[str, str] | None = None,
        completions: CompletionForm = "messages",
        accept_above: float = 0.0,
        truncated_rollouts: TruncatedRollouts = "neutral",
    ) -> None:
        super().__init__(truncated_rollouts)
        require_choice(CompletionForm, "verifier.completions", completions)
        require(math.isfinite(accept_above), "verifier.accept_above", "be a finite number", accept_above)
        self.path = function
        self.function = _import_function(function)
        self.columns = columns or {}
        self.completions = completions
        self.accept_above = accept_above

    def grade(self, rollout: Rollout) -> Grade:
        return self.grade_all([rollout])[0]

    def grade_all(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        """Call the function once.

        Raises:
            ValueError: when it takes what there is no column for, or does not return a number or None per completion.
            RuntimeError: when it raises, naming it.
        """
        if not rollouts:
            return []
        arguments = _keep_accepted(self.path, self.function, self._arguments(rollouts))
        try:
            rewards = self.function(**arguments)
        except Exception as error:
            raise RuntimeError(f"verifier.function {self.path} raised {type(error).__name__}: {error}") from error
        return [
            Grade(
                reward=reward,
                answer=None,
                accepted=None if reward is None else reward > self.accept_above,
            )
            for reward in self._check_rewards(rewards, len(rollouts))
        ]

    def _arguments(self, rollouts: Sequence[Rollout]) -> dict[str, list[Any]]:
        columns = [_columns(rollout.problem) for rollout in rollouts]
        names = {name for row in columns for name in row}
        by_name = {name: [row.get(name) for row in columns] for name in names}
        renamed = {name: by_name[column] for name, column in self.columns.items() if column in by_name}
        missing = sorted(column for column in self.columns.values() if column not in by_name)
        if missing:
            raise ValueError(
                f"verifier.columns: the problems have no column {missing[0]!r}; they have {', '.join(sorted(by_name))}"
            )
        as_chat = self.completions == "messages"
        texts = [rollout.completion_text for rollout in rollouts]
        return {
            **by_name,
            **renamed,
            "prompts": [list(rollout.messages[:-1]) for rollout in rollouts],
            "completions": [[{"role": "assistant", "content": text}] if as_chat else text for text in texts],
            "completion_ids": [list(rollout.completion_ids) for rollout in rollouts],
        }

    def _check_rewards(self, rewards: Any, num_completions: int) -> list[float | None]:
        if not isinstance(rewards, Sequence) or len(rewards) != num_completions:
            found = f"{len(rewards)} values" if isinstance(rewards, Sequence) else type(rewards).__name__
            raise ValueError(
                f"verifier.function {self.path} must return a list of one number or None per completion; got {found} "
                f"for {num_completions} completions"
            )
        return [self._to_number(reward) for reward in rewards]

    def _to_number(self, reward: Any) -> float | None:
        if reward is None:
            return None
        try:
            number = float(reward)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"verifier.function {self.path} must return finite numbers or None; got {reward!r}")
        return number


def _import_function(path: str) -> Callable[..., Any]:
    module_name, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"verifier.function {path!r} cannot be imported: {error}") from error
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(f"verifier.function {path!r} must be a plain function; got {type(function).__name__}")
    return function


def _keep_accepted(path: str, function: Callable[..., Any], arguments: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the arguments that the function has parameters for; all of them if it takes ``**kwargs``.

    Raises:
        ValueError: for parameters that there are no arguments for.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # not written in Python
        return dict(arguments)
    kinds = inspect.Parameter
    unknown = [
        parameter.name
        for parameter in parameters
        if parameter.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
        and parameter.default is kinds.empty
        and (parameter.name not in arguments or parameter.kind is kinds.POSITIONAL_ONLY)
    ]
    if unknown:
        raise ValueError(
            f"verifier.function {path} takes {', '.join(unknown)}, which it is not passed; it is passed "
            f"{', '.join(sorted(arguments))} by keyword: name the column that stands for it in verifier.columns"
        )
    if any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters):
        return dict(arguments)
    names = {parameter.name for parameter in parameters}
    return {name: values for name, values in arguments.items() if name in names}


def _columns(problem: Problem) -> dict[str, Any]:
    return {
        **problem.metadata,
        "problem_id": problem.problem_id,
        "problem": problem.text,
        "answer": problem.answer,
        "solution": problem.solution,
    }
