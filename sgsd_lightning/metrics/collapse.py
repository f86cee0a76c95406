"""Detects that a policy collapses from a run's metrics: numbers in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sgsd_lightning.types.arguments import require, require_at_least

Kind = Literal["shrinks", "rises", "falls"]
ROUNDING = 1e-6
"""Tolerance of comparisons: logged numbers are float32."""


@dataclass(frozen=True, kw_only=True)
class CollapseBounds:
    """What counts as collapse; None turns a rule off. Windows count optimizer steps."""

    length_frac: float | None = 0.5
    """The smallest fraction of the initial completion length. Accepted and rejected completions must both have shrunk:
    a policy that improves writes fewer long wrong answers, which shortens the mean over all."""
    entropy_frac: float | None = 0.1
    """The smallest fraction of the initial entropy. A policy that improves loses most of it as well."""
    repetition_frac: float | None = 0.5
    """The largest share of n-grams that repeat earlier ones of their completion."""
    truncated_frac: float | None = 0.5
    """The largest share of completions cut off at the token limit."""
    active_rollout_frac: float | None = None
    """The smallest share of rollouts that teach anything. Off, since a policy that has learned what its teachers know
    ends near 0 as well."""
    truncated_limit: float | None = 0.9
    """The share of completions cut off that no run recovers from, however it began, over ``limit_steps`` in a row."""
    no_signal_below: float | None = 0.9
    """No rollout moves the policy for ``limit_steps`` in a row while fewer than this share is accepted: the run is
    dead. Where more is accepted, it has learned what there is to learn."""
    limit_steps: int = 5
    """For how many steps in a row the two rules above must hold."""
    avg_at_k_drop: float | None = 0.08
    """How far avg@k may be below its best evaluation."""
    pass_at_k_drop: float | None = 0.1
    """How far pass@k may be below its first evaluation: sharpening brings avg@k up to pass@k, collapse loses answers
    that were within reach. Not below its best, the luckiest of many."""
    baseline_steps: int = 10
    """How many of the first steps make up the start of the run."""
    window: int = 10
    """How many of the last steps are averaged and compared with the start."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            name = f"collapse_guard.{field.name}"
            if field.name in ("baseline_steps", "window", "limit_steps"):
                require_at_least(1, name, value)
            else:
                require(value is None or 0 < value < 1, name, "be between 0 and 1, or null", value)


@dataclass(frozen=True, slots=True)
class StepRule:
    """One sign of collapse in the metrics of training steps: it must show in each of ``metrics``."""

    setting: str
    kind: Kind
    metrics: tuple[str, ...]
    symptom: str


STEP_RULES = (
    StepRule(
        "length_frac",
        "shrinks",
        ("rollout/completion_tokens_accepted_mean", "rollout/completion_tokens_rejected_mean"),
        "completions shrank to {percent:.0f} % of their length at the start",
    ),
    StepRule(
        "entropy_frac",
        "shrinks",
        ("rollout/student_entropy",),
        "the policy's entropy fell to {percent:.0f} % of what it was at the start",
    ),
    StepRule("repetition_frac", "rises", ("rollout/repetition_frac",), "completions repeat themselves"),
    StepRule("truncated_frac", "rises", ("rollout/truncated_frac",), "completions run into the token limit"),
    StepRule("active_rollout_frac", "falls", ("objective/active_rollout_frac",), "hardly any rollout teaches"),
)
TRUNCATED, ACTIVE, ACCEPTED = (
    "rollout/truncated_frac",
    "objective/active_rollout_frac",
    "rollout/accepted_frac",
)
NO_SUCCESS_STEPS = 3
NO_SUCCESS = (
    "none of the first {steps} steps had an accepted rollout: where everything is wrong, a policy is only pushed away "
    "from what it does, and may end cut off or empty. Take easier problems, a lower "
    "rollouts.init_args.sampling.sampling_temperature, a longer max_new_tokens or shorter prompts; "
    "objective.init_args.outcome_baseline: group keeps GatedPolarity still until something is right"
)
AVG_AT_K, PASS_AT_K = "val/avg@k", "val/pass@k"


class CollapseWatch:
    """Follows a run's metrics and reports each rule once, when it first trips.

    An absolute bound does not apply to a run that begins on the wrong side of it: such a run did not collapse.

    Args:
        bounds: what counts as collapse.
    """

    def __init__(self, bounds: CollapseBounds) -> None:
        self.bounds = bounds
        self.tripped: dict[str, str] = {}
        """The sentences of the rules that tripped, by the name of the setting."""
        self._num_steps = 0
        self._start: dict[str, list[float]] = {}
        self._recent: dict[str, list[float | None]] = {}
        self._num_truncated = 0
        self._num_without_signal = 0
        self._has_succeeded = False
        self._best: float | None = None
        self._first_pass: float | None = None

    def observe_step(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """Check the metrics of one optimizer step.

        Returns:
            One sentence per rule that trips for the first time.
        """
        self._num_steps += 1
        for name in (name for rule in STEP_RULES for name in rule.metrics):
            value = metrics.get(name)
            if name.startswith("rollout/completion_tokens") and value == 0:
                value = None  # there were no such completions
            self._recent[name] = [*self._recent.get(name, []), value][-self.bounds.window :]
            if self._num_steps <= self.bounds.baseline_steps and value is not None:
                self._start.setdefault(name, []).append(value)
        found = self._find_limits(metrics)
        if self._num_steps > max(self.bounds.baseline_steps, self.bounds.window):
            found |= {rule.setting: self._describe_symptom(rule) for rule in STEP_RULES}
        return [*self._hint(metrics), *self._report_new(step, found)]

    def observe_evaluation(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """Check the metrics of an evaluation; as :meth:`observe_step`."""
        found: dict[str, str | None] = {}
        average, passed = metrics.get(AVG_AT_K), metrics.get(PASS_AT_K)
        if average is not None:
            self._best = average if self._best is None else max(self._best, average)
            found["avg_at_k_drop"] = self._describe_fall(
                self._best, average, "avg_at_k_drop", f"{AVG_AT_K} fell from its best"
            )
        if passed is not None:
            self._first_pass = passed if self._first_pass is None else self._first_pass
            found["pass_at_k_drop"] = self._describe_fall(
                self._first_pass, passed, "pass_at_k_drop", f"{PASS_AT_K} fell from its first"
            )
        return self._report_new(step, found)

    def _find_limits(self, metrics: Mapping[str, float]) -> dict[str, str | None]:
        """Check what is a dead run whatever the run began with: the start may have been on the wrong side already."""
        truncated, active, accepted = (metrics.get(name) for name in (TRUNCATED, ACTIVE, ACCEPTED))
        limit, share, steps = self.bounds.truncated_limit, self.bounds.no_signal_below, self.bounds.limit_steps
        is_truncated = limit is not None and truncated is not None and truncated > limit
        self._num_truncated = self._num_truncated + 1 if is_truncated else 0
        is_dead = share is not None and active == 0 and accepted is not None and accepted < share
        self._num_without_signal = self._num_without_signal + 1 if is_dead else 0
        found: dict[str, str | None] = {}
        if self._num_truncated >= steps:
            found["truncated_limit"] = (
                f"more than {limit:g} of the completions ran into the token limit in each of the last {steps} steps "
                f"({TRUNCATED} {truncated:.3g}, collapse_guard.truncated_limit {limit:g})"
            )
        if self._num_without_signal >= steps:
            found["no_signal_below"] = (
                f"no rollout had a signal in the last {steps} steps ({ACTIVE} 0, {ACCEPTED} {accepted:.3g}, "
                f"collapse_guard.no_signal_below {share:g}): nothing moves the policy any more"
            )
        return found

    def _hint(self, metrics: Mapping[str, float]) -> list[str]:
        """Say once what to change if the first steps had no success; that is no collapse and stops nothing."""
        self._has_succeeded = self._has_succeeded or metrics.get(ACCEPTED, 1.0) > 0
        if self._has_succeeded or self._num_steps != NO_SUCCESS_STEPS:
            return []
        return [NO_SUCCESS.format(steps=NO_SUCCESS_STEPS)]

    def raise_best(self, average: float) -> None:
        """Raise the best avg@k to one of an evaluation that was not observed here."""
        self._best = average if self._best is None else max(self._best, average)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: numbers and strings."""
        return {
            "num_steps": self._num_steps,
            "start": {name: list(values) for name, values in self._start.items()},
            "recent": {name: list(values) for name, values in self._recent.items()},
            "num_truncated": self._num_truncated,
            "num_without_signal": self._num_without_signal,
            "has_succeeded": self._has_succeeded,
            "best": self._best,
            "first_pass": self._first_pass,
            "tripped": dict(self.tripped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; bounds may differ from those it was saved under."""
        self._num_steps = state["num_steps"]
        self._start = {name: list(values) for name, values in state["start"].items()}
        self._recent = {name: list(values) for name, values in state["recent"].items()}
        self._num_truncated = state.get("num_truncated", 0)
        self._num_without_signal = state.get("num_without_signal", 0)
        self._has_succeeded = state.get("has_succeeded", True)
        self._best, self._first_pass = state["best"], state["first_pass"]
        self.tripped = dict(state["tripped"])

    def _describe_symptom(self, rule: StepRule) -> str | None:
        bound = getattr(self.bounds, rule.setting)
        values = {
            name: (_mean(self._start[name]), _mean(recent))
            for name in rule.metrics
            if name in self._start and (recent := [value for value in self._recent[name] if value is not None])
        }
        if bound is None or not values or not all(_shows(rule.kind, *pair, bound) for pair in values.values()):
            return None
        percent = max(100 * recent / start for start, recent in values.values()) if rule.kind == "shrinks" else 0.0
        changes = ", ".join(f"{name} {start:.3g} -> {recent:.3g}" for name, (start, recent) in values.items())
        return f"{rule.symptom.format(percent=percent)} ({changes}, collapse_guard.{rule.setting} {bound:g})"

    def _describe_fall(self, high: float, now: float, setting: str, symptom: str) -> str | None:
        bound = getattr(self.bounds, setting)
        if bound is None or not high - now > bound + ROUNDING:
            return None
        return f"{symptom} by {high - now:.3g} ({high:.3g} -> {now:.3g}, collapse_guard.{setting} {bound:g})"

    def _report_new(self, step: int, found: Mapping[str, str | None]) -> list[str]:
        new = {
            setting: f"collapse: {symptom} at step {step}"
            for setting, symptom in found.items()
            if symptom is not None and setting not in self.tripped
        }
        self.tripped |= new
        return list(new.values())


def _shows(kind: Kind, start: float, recent: float, bound: float) -> bool:
    if kind == "shrinks":
        return recent < bound * start
    return start <= bound < recent if kind == "rises" else recent < bound <= start


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
