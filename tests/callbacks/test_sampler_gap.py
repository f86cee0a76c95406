"""The alarm about sampler and scorer, in real runs whose sampler reads other weights than the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from transformers import PreTrainedModel

from sgsd_lightning.callbacks.sampler_gap import SamplerGapAlarm, SamplerGapError
from sgsd_lightning.data import ProblemDataModule, ProblemSource
from sgsd_lightning.engines import GenerationRequest, TransformersEngine
from sgsd_lightning.types import Completion, Problem, SamplingSettings
from tests.support.tiny import PROBLEMS, tiny_module, tiny_policy


class FourProblems(ProblemSource):
    def load(self) -> list[Problem]:
        return PROBLEMS[:4]


class OffAtSteps(TransformersEngine):
    """Samples from weights that are off, during some optimizer steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__()
        self.steps = steps
        self.num_calls = 0

    def generate(
        self, model: PreTrainedModel, requests: Sequence[GenerationRequest], sampling: SamplingSettings
    ) -> list[Completion]:
        self.num_calls += 1  # one per optimizer step, for all its micro-batches
        step = self.num_calls
        head = model.get_output_embeddings().weight
        factor = 3.0 if step in self.steps else 1.0
        with torch.no_grad():
            head *= factor
            try:
                return super().generate(model, requests, sampling)
            finally:
                head /= factor


def fit(alarm: SamplerGapAlarm, folder: Path, steps: Sequence[int] = (), num_steps: int = 6, **module: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=num_steps,
        accumulate_grad_batches=2,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=[alarm],
    )
    data = ProblemDataModule(train=FourProblems(), batch_size=1)
    trainer.fit(tiny_module(engine=OffAtSteps(steps), **module), datamodule=data)
    return trainer


def _alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith("sampler_gap")]


def test_a_run_whose_sampler_and_scorer_agree_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(SamplerGapAlarm(max_mean_gap=1e-5, action="stop"), tmp_path)
    assert _alarms(caplog) == []


def test_it_warns_once_for_each_time_that_the_bound_is_crossed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(SamplerGapAlarm(), tmp_path, steps=(2, 3, 6))
    alarms = _alarms(caplog)
    assert len(alarms) == 2
    assert "after step 2, above the bound of 0.01: sampler and scorer disagree" in alarms[0]
    assert "after step 6" in alarms[1]


def test_it_stops_before_the_next_step(tmp_path: Path) -> None:
    alarm = SamplerGapAlarm(action="stop")
    with pytest.raises(SamplerGapError, match=r"sampler_gap_mean is [\d.]+ nats after step 2, above the bound of 0.01"):
        fit(alarm, tmp_path, steps=(2,))


def test_the_last_step_of_a_run_is_checked_and_never_stopped_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(SamplerGapAlarm(action="stop"), tmp_path, steps=(3,), num_steps=3)
    assert len(_alarms(caplog)) == 1


def test_half_precision_has_a_gap_of_its_own_that_the_default_bound_allows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = fit(SamplerGapAlarm(), tmp_path, num_steps=1, policy=tiny_policy(dtype="bfloat16"))
    assert _alarms(caplog) == []
    assert 1e-5 < float(trainer.callback_metrics["rollout/sampler_gap_mean"]) < 0.1
    fit(SamplerGapAlarm(), tmp_path, num_steps=1, steps=(1,), policy=tiny_policy(dtype="bfloat16"))
    assert "above the bound of 0.1" in _alarms(caplog)[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_mean_gap": 0.0}, "max_mean_gap must be above 0 nats, or null; got 0.0"),
        ({"action": "sleep"}, "action must be one of warn, stop; got 'sleep'"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplerGapAlarm(**settings)
