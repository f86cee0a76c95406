"""The guard against collapse: what counts as one, what is said and done, and that no accident makes it forget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.callbacks import BestCheckpoint, CollapseGuard, RunCheckpoint
from sgsd_lightning.cli.configs import resolve_config
from sgsd_lightning.cli.lightning_cli import SelfDistillationCLI, run
from sgsd_lightning.metrics.collapse import CollapseBounds, CollapseWatch
from sgsd_lightning.metrics.measurements import combine
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.training import RunCallback, StepPhase
from sgsd_lightning.training.step_metrics import repeated_ngram_frac, rollout_metrics
from tests.support.scripted_runs import fit, saved
from tests.support.tiny import PROBLEMS, judged, tiny_rollout

ACCEPTED, REJECTED = "rollout/completion_tokens_accepted_mean", "rollout/completion_tokens_rejected_mean"
OFF = {name: None for name, bound in vars(CollapseBounds()).items() if isinstance(bound, float)}
COLLAPSE = [0.5, 0.6, 0.3, 0.2, 0.1, 0.1]
"""avg@k of evaluations, the second best and the third a collapse."""


def watch(**bounds: Any) -> CollapseWatch:
    """One rule alone, over two steps against the first two."""
    return CollapseWatch(CollapseBounds(**{**OFF, "baseline_steps": 2, "window": 2, **bounds}))  # type: ignore[arg-type]


def said(watched: CollapseWatch, steps: list[Mapping[str, float]]) -> list[list[str]]:
    return [watched.observe_step(number, metrics) for number, metrics in enumerate(steps, start=1)]


def of(metric: str, *values: float) -> list[Mapping[str, float]]:
    return [{metric: value} for value in values]


def test_length_is_judged_by_correctness() -> None:
    steps = [{ACCEPTED: 10.0, REJECTED: 20.0}] * 2 + [{ACCEPTED: 4.0, REJECTED: 6.0}] * 2
    *quiet, last = said(watch(length_frac=0.5), steps)
    assert last == [
        "collapse: completions shrank to 40 % of their length at the start (rollout/completion_tokens_accepted_mean "
        "10 -> 4, rollout/completion_tokens_rejected_mean 20 -> 6, collapse_guard.length_frac 0.5) at step 4"
    ]
    assert not any(quiet)
    # fewer long wrong answers are no collapse
    assert not any(said(watch(length_frac=0.5), steps[:2] + [{ACCEPTED: 9.0, REJECTED: 6.0}] * 4))
    # nothing was accepted, which is not a length of 0
    assert not any(said(watch(length_frac=0.5), [{ACCEPTED: 0.0, REJECTED: 20.0}] * 6))
    nothing_right = [{ACCEPTED: 0.0, REJECTED: 20.0}] * 2 + [{ACCEPTED: 0.0, REJECTED: 6.0}] * 2
    assert len(said(watch(length_frac=0.5), nothing_right)[-1]) == 1
    # what was right at the start and is no longer there does not speak for a policy whose wrong answers shrink
    lost = steps[:2] + [{ACCEPTED: 0.0, REJECTED: 6.0}] * 2
    assert len(said(watch(length_frac=0.5), lost)[-1]) == 1


@pytest.mark.parametrize(
    ("setting", "metric", "values", "trips"),
    [
        ("entropy_frac", "rollout/student_entropy", (1.0, 3.0, 0.5, 0.3), True),
        ("entropy_frac", "rollout/student_entropy", (1.0, 3.0, 0.5, 0.7), False),
        ("repetition_frac", "rollout/repetition_frac", (0.1, 0.1, 0.2, 0.9), True),
        ("repetition_frac", "rollout/repetition_frac", (0.1, 0.1, 0.2, 0.5), False),
        ("truncated_frac", "rollout/truncated_frac", (0.0, 0.1, 0.3, 0.9), True),
        ("truncated_frac", "rollout/truncated_frac", (0.9, 0.8, 0.9, 1.0), False),  # so it began
        ("active_rollout_frac", "objective/active_rollout_frac", (0.9, 0.9, 0.2, 0.1), True),
        ("active_rollout_frac", "objective/active_rollout_frac", (0.2, 0.2, 0.1, 0.1), False),  # so it began
        ("active_rollout_frac", "another/metric", (0.9, 0.9, 0.2, 0.1), False),
    ],
)
def test_a_step_rule_trips_on_the_mean_of_a_window(
    setting: str, metric: str, values: tuple[float, ...], trips: bool
) -> None:
    bound = {"entropy_frac": 0.25, "repetition_frac": 0.5, "truncated_frac": 0.5, "active_rollout_frac": 0.4}[setting]
    watched = watch(**{setting: bound})
    *quiet, last = said(watched, of(metric, *values))
    assert not any(quiet)
    assert len(last) == len(watched.tripped) == trips
    assert all(f"collapse_guard.{setting} {bound}) at step 4" in sentence for sentence in last)
    # once is enough, and off is off
    assert not any(said(watched, of(metric, *values[-1:])))
    assert not any(said(watch(), of(metric, *values)))


def test_accuracy_is_compared_with_its_best_and_its_first() -> None:
    watched = watch(avg_at_k_drop=0.1, pass_at_k_drop=0.1)
    evaluations = [(0.4, 0.8), (0.6, 0.9), (0.55, 0.7), (0.45, 0.65), (0.1, 0.1)]
    spoken = [
        watched.observe_evaluation(10 * number, {"val/avg@k": average, "val/pass@k": passed})
        for number, (average, passed) in enumerate(evaluations, start=1)
    ]
    assert spoken == [
        [],
        [],
        [],
        [
            "collapse: val/avg@k fell from its best by 0.15 (0.6 -> 0.45, collapse_guard.avg_at_k_drop 0.1) at step 40",
            "collapse: val/pass@k fell from its first by 0.15 (0.8 -> 0.65, collapse_guard.pass_at_k_drop 0.1) "
            "at step 40",
        ],
        [],
    ]
    assert list(watched.tripped) == ["avg_at_k_drop", "pass_at_k_drop"]


def test_a_watch_that_goes_on_from_its_state_is_the_same_watch() -> None:
    steps: list[Mapping[str, float]] = [
        {REJECTED: length, "rollout/student_entropy": 1.0 / length} for length in (9.0, 8.0, 7.0, 5.0, 3.0, 1.0)
    ]
    bounds = {"length_frac": 0.5, "entropy_frac": 0.5, "baseline_steps": 3}
    straight = watch(**bounds)
    spoken = said(straight, steps)
    assert any(spoken)
    for cut in range(len(steps)):
        first, second = watch(**bounds), watch(**bounds)
        before = said(first, steps[:cut])
        second.load_state_dict(first.state_dict())
        after = [second.observe_step(number + 1, steps[number]) for number in range(cut, len(steps))]
        assert before + after == spoken
        assert second.state_dict() == straight.state_dict()


def sparse_run(
    truncated: list[float], active: list[float], accepted: list[float] | None = None
) -> list[Mapping[str, float]]:
    """Steps of a run in which nothing is accepted, by what was measured of each."""
    accepted = accepted or [0.0] * len(truncated)
    names = ("rollout/truncated_frac", "objective/active_rollout_frac", "rollout/accepted_frac")
    return [dict(zip(names, values, strict=True)) for values in zip(truncated, active, accepted, strict=True)]


NEUTRAL_TRAINED = sparse_run(
    [0.5, 0.59, 0.59, 0.88, 0.94, 0.97, 0.97, *[1.0] * 10],
    [0.5, 0.41, 0.41, 0.12, 0.06, 0.03, 0.03, *[0.0] * 9, 0.03],
    [*[0.0] * 16, 0.03],
)
NEUTRAL_MASKED = sparse_run(
    [0.5, 0.62, 0.66, 0.91, 0.97, 0.91, 0.94, 1.0, 1.0], [0.5, 0.38, 0.34, 0.09, 0.03, 0.09, 0.06, 0.0, 0.0]
)
FAILURE = sparse_run(
    [0.5, 0.75, 0.53, 0.62, 0.81, 0.88, 1.0, 0.97, 0.97, 0.95],
    [1.0, 1.0, 1.0, 1.0, 0.97, 1.0, 0.97, 0.97, 0.94, 0.95],
    [0.0, 0.0, 0.0, 0.0, 0.03, 0.0, 0.0, 0.0, 0.0, 0.0],
)
"""A small real model on sums that it cannot do yet: three runs that died without a word from the older rules."""


@pytest.mark.parametrize(
    ("steps", "truncated_at", "dead_at"),
    [(NEUTRAL_TRAINED, 9, 12), (NEUTRAL_MASKED, 8, None), (FAILURE, None, None)],
    ids=["neutral, end trained", "neutral, end masked", "failure"],
)
def test_a_run_without_success_is_told_when_it_dies_of_truncation(
    steps: list[Mapping[str, float]], truncated_at: int | None, dead_at: int | None
) -> None:
    watched = CollapseWatch(CollapseBounds())
    spoken = dict(enumerate(said(watched, steps), start=1))
    (hint,) = spoken.pop(3)
    assert "none of the first 3 steps had an accepted rollout" in hint
    assert "easier problems" in hint
    found = {
        setting: [step for step, sentences in spoken.items() if any(setting in sentence for sentence in sentences)]
        for setting in ("truncated_limit", "no_signal_below")
    }
    assert found["truncated_limit"] == ([truncated_at] if truncated_at else [])
    assert found["no_signal_below"] == ([dead_at] if dead_at else [])
    assert set(watched.tripped) == {setting for setting, at in found.items() if at}


def test_a_run_that_learned_everything_is_not_dead() -> None:
    learned = sparse_run([0.0] * 20, [0.0] * 20, [1.0] * 20)
    assert not any(said(CollapseWatch(CollapseBounds()), learned))
    stuck = sparse_run([0.0] * 20, [0.0] * 20, [0.5] * 20)
    watched = CollapseWatch(CollapseBounds())
    assert [bool(sentences) for sentences in said(watched, stuck)].index(True) == 4
    assert "nothing moves the policy any more" in watched.tripped["no_signal_below"]


def test_the_limits_go_on_from_a_checkpoint() -> None:
    straight = CollapseWatch(CollapseBounds())
    spoken = said(straight, NEUTRAL_TRAINED)
    for cut in range(len(NEUTRAL_TRAINED)):
        first, second = CollapseWatch(CollapseBounds()), CollapseWatch(CollapseBounds())
        before = said(first, NEUTRAL_TRAINED[:cut])
        second.load_state_dict(first.state_dict())
        after = [second.observe_step(n + 1, NEUTRAL_TRAINED[n]) for n in range(cut, len(NEUTRAL_TRAINED))]
        assert before + after == spoken


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"collapse_guard\.action must be one of warn, stop, rollback; got 'panic'"):
        CollapseGuard(action="panic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"collapse_guard\.length_frac must be between 0 and 1, or null; got 1\.5"):
        CollapseGuard(length_frac=1.5)
    with pytest.raises(ValueError, match=r"collapse_guard\.window must be at least 1; got 0"):
        CollapseGuard(window=0)


def test_completions_are_measured_by_correctness_and_repetition() -> None:
    assert repeated_ngram_frac([1, 2, 3]) == 0
    assert repeated_ngram_frac([1, 2, 3, 4, 5]) == 0
    # 1234 2341 3412 4123 1234 2341: two of six occurred before
    assert repeated_ngram_frac([1, 2, 3, 4, 1, 2, 3, 4, 1]) == pytest.approx(2 / 6)
    assert repeated_ngram_frac([7] * 9) == pytest.approx(5 / 6)
    completions = [[7] * 9, [1, 2], [3], [4, 5, 6]]
    rollouts = [tiny_rollout(problem, [1], ids) for problem, ids in zip(PROBLEMS, completions, strict=False)]
    parts = [
        rollout_metrics([judged(rollouts[0], 1)]),
        rollout_metrics([judged(*pair) for pair in zip(rollouts[1:], (-1, 1, 0), strict=True)]),
    ]
    found = combine(parts)
    assert found[ACCEPTED] == 5
    assert found[REJECTED] == 2
    assert found["rollout/repetition_frac"] == pytest.approx(5 / 24)
    assert combine([rollout_metrics([judged(rollouts[0], 1)])])[REJECTED] == 0


class Notes(RunCallback):
    """What the guard knows when a step is over, and what was logged of it."""

    def __init__(self, guard: CollapseGuard) -> None:
        self.guard = guard
        self.pairs: list[tuple[float | None, float]] = []
        self._known: float | None = None

    phase = StepPhase.SAVE

    def on_step(self, *_: Any) -> None:
        self._known = self.guard.watch.state_dict()["recent"]["rollout/student_entropy"][-1]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pairs.append((self._known, float(trainer.callback_metrics["rollout/student_entropy"])))


def test_a_step_is_judged_by_its_own_numbers(tmp_path: Path) -> None:
    guard = CollapseGuard()
    notes = Notes(guard)
    fit(tmp_path, [0.5] * 3, [guard, notes])
    assert len({known for known, _ in notes.pairs}) == 3
    for known, logged in notes.pairs:
        assert known == pytest.approx(logged)


def guarded(folder: Path, action: str, scores: list[float], **settings: Any) -> tuple[SelfDistillation, Trainer]:
    # a random model is cut off from the start and never right
    limits = {"truncated_limit": None, "no_signal_below": None}
    guard = CollapseGuard(action=action, avg_at_k_drop=0.25, **limits)  # type: ignore[arg-type]
    checkpoints = [BestCheckpoint(), RunCheckpoint(dirpath=str(folder / "checkpoints"))]
    module, trainer, _ = fit(folder, scores, [guard, *checkpoints], **settings)
    return module, trainer


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    spoken = [record.message for record in caplog.records if record.name.endswith("collapse_guard")]
    return [message for message in spoken if not message.startswith("none of the first 3 steps")]


def test_a_warning_is_given_once_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, trainer = guarded(tmp_path, "warn", COLLAPSE)
    assert trainer.global_step == len(COLLAPSE)
    assert trainer.callback_metrics["collapse/num_tripped"] == 1
    (sentence,) = messages(caplog)
    assert sentence.startswith("collapse: val/avg@k fell from its best by 0.3 (0.6 -> 0.3, ")
    assert sentence.endswith("at step 3")


def test_a_healthy_run_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, trainer = guarded(tmp_path, "rollback", [0.2, 0.5, 0.4, 0.6])
    assert trainer.global_step == 4
    assert trainer.callback_metrics["collapse/num_tripped"] == 0
    assert not messages(caplog)


def test_a_run_stops_names_its_best_checkpoint_and_stays_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    _, trainer = guarded(tmp_path, "stop", COLLAPSE)
    assert trainer.global_step == 3
    best = f"{folder}/best.ckpt (val/avg@k 0.6, step 2)"
    assert messages(caplog)[-1] == f"collapse_guard stopped the run after step 3; the best checkpoint is {best}"
    last = saved(folder / "last.ckpt")
    assert last["global_step"] == 3
    assert list(last["callbacks"]["CollapseGuard"]["tripped"]) == ["avg_at_k_drop"]

    caplog.clear()
    again = {"max_steps": 6, "ckpt_path": folder / "last.ckpt"}
    _, trainer = guarded(tmp_path, "stop", COLLAPSE[3:], **again)
    assert trainer.global_step == 3
    assert "(0.6 -> 0.3, " in messages(caplog)[0]
    assert "--collapse_guard.action=warn continues all the same" in messages(caplog)[0]
    _, trainer = guarded(tmp_path, "warn", COLLAPSE[3:], **again)
    assert trainer.global_step == 6
    guarded(tmp_path / "straight", "warn", COLLAPSE)
    assert_same_run(saved(folder / "last.ckpt"), saved(tmp_path / "straight/checkpoints/last.ckpt"))


def assert_same_run(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Weights and what the guard knows, bit for bit."""
    assert found["global_step"] == expected["global_step"]
    assert found["callbacks"]["CollapseGuard"] == expected["callbacks"]["CollapseGuard"]
    for name, weight in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weight), name


def test_a_run_that_is_stopped_by_a_step_says_so_in_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without validation there is nothing to name, and nothing is saved but the last step."""
    monkeypatch.setattr(CollapseWatch, "observe_step", _trips_at_2)
    guard, checkpoint = CollapseGuard(action="stop"), RunCheckpoint(dirpath=str(tmp_path / "checkpoints"))
    fit(tmp_path, [], [guard, BestCheckpoint(), checkpoint], max_steps=4, limit_val_batches=0)
    last = saved(tmp_path / "checkpoints/last.ckpt")
    assert last["global_step"] == 2
    assert last["callbacks"]["CollapseGuard"]["tripped"] == {"entropy_frac": "collapse: so it is at step 2"}
    assert messages(caplog)[-1].endswith(
        "after step 2; there is no best checkpoint, since nothing was evaluated before"
    )


def test_a_run_is_not_stopped_in_the_middle_of_a_step(tmp_path: Path) -> None:
    """An evaluation after each of an epoch's three micro-batches, an optimizer step after the second and the third."""
    for number, scores in {2: [0.6, 0.6, 0.6, 0.1, 0.1, 0.1], 1: [0.6, 0.1, 0.1, 0.1]}.items():
        folder = tmp_path / str(number)
        _, trainer = guarded(folder, "stop", scores, max_steps=4, accumulate_grad_batches=2)
        # the collapse is seen within the third step, and at the end of the first
        expected = {2: (3, 5), 1: (1, 2)}[number]
        assert (trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx + 1) == expected
        assert saved(folder / "checkpoints/last.ckpt")["global_step"] == trainer.global_step


def _trips_at_2(self: CollapseWatch, step: int, metrics: Mapping[str, float]) -> list[str]:
    return self._report_new(step, {"entropy_frac": "so it is" if step == 2 else None})


def test_a_run_is_taken_back_to_its_best_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    module, trainer = guarded(tmp_path, "rollback", COLLAPSE)
    assert trainer.global_step == 3
    best = saved(folder / "best.ckpt")
    assert best["global_step"] == 2
    assert any(name.startswith("teacher_weights.") for name in best["state_dict"])
    for name, weight in best["state_dict"].items():
        assert torch.equal(module.state_dict()[name], weight), name
    assert (folder / "last.ckpt").read_bytes() == (folder / "best.ckpt").read_bytes()
    assert messages(caplog)[-1] == (
        "collapse_guard stopped the run after step 3; rolled back to "
        f"{folder}/best.ckpt (val/avg@k 0.6, step 2), of which last.ckpt is now a copy"
    )
    # from there it is the run that it was
    module, trainer = guarded(tmp_path, "rollback", [0.6, 0.7, 0.7, 0.7], max_steps=6, ckpt_path=folder / "last.ckpt")
    assert trainer.global_step == 6
    straight, _ = guarded(tmp_path / "straight", "warn", [0.5, 0.6, 0.6, 0.7, 0.7, 0.7])
    for name, weight in straight.state_dict().items():
        assert torch.equal(module.state_dict()[name], weight), name


def test_what_cannot_be_rolled_back_is_refused_before_it_begins(tmp_path: Path) -> None:
    checkpoint = RunCheckpoint(dirpath=str(tmp_path / "checkpoints"))
    message = (
        r"rollback goes back to the best checkpoint, which takes validation problems .* and best_checkpoint\.metric"
    )
    for callbacks, settings in (
        ([checkpoint], {}),
        ([checkpoint, BestCheckpoint(metric=None)], {}),
        ([checkpoint, BestCheckpoint()], {"limit_val_batches": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, [0.5], [CollapseGuard(action="rollback"), *callbacks], max_steps=1, **settings)


def test_an_evaluation_after_the_checkpoint_counts_where_it_was_the_best(tmp_path: Path) -> None:
    """The run dies in step 3; its last.ckpt was written before the evaluation of step 2, the best."""
    guarded(tmp_path, "warn", [0.3, 0.6])
    last = tmp_path / "checkpoints/last.ckpt"
    assert saved(last)["callbacks"]["CollapseGuard"]["best"] == pytest.approx(0.3)
    _, trainer = guarded(tmp_path, "stop", [0.3, 0.3], max_steps=4, ckpt_path=last)
    assert trainer.global_step == 3


def toy(folder: Path, *arguments: str) -> SelfDistillationCLI:
    common = [f"--config={resolve_config('sgsd_toy')}", f"--trainer.default_root_dir={folder}"]
    return run(["fit", *common, "--trainer.enable_progress_bar=false", *arguments])


@pytest.mark.slow
def test_the_toy_world_collapses_under_imitation_and_is_brought_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    imitate = f"--config={resolve_config('method/sgsd_imitate')}"
    stopped = toy(tmp_path / "stop", imitate, "--collapse_guard.action=stop")
    assert stopped.trainer.global_step < 40
    assert any(re.match(r"collapse: val/avg@k fell from its best", sentence) for sentence in messages(caplog))
    rolled = toy(tmp_path / "rollback", imitate, "--collapse_guard.action=rollback")
    assert rolled.trainer.global_step == stopped.trainer.global_step
    best = tmp_path / "rollback/checkpoints/best.ckpt"

    def accuracy(cli: SelfDistillationCLI, ckpt_path: Path | None = None) -> float:
        (found,) = cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt_path, verbose=False)
        return found["test/avg@k"]

    collapsed, restored = accuracy(stopped), accuracy(rolled)
    assert restored > collapsed
    assert restored == accuracy(stopped, best)


@pytest.mark.slow
@pytest.mark.parametrize("method", [(), (f"--config={resolve_config('method/grpo')}",)])
def test_healthy_toy_runs_are_left_alone(
    method: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert toy(tmp_path, *method).trainer.callback_metrics["collapse/num_tripped"] == 0
    assert not messages(caplog)
