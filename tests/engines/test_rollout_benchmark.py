"""What the benchmark compares samples the same completions: the engine, and transformers' generation step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks import step_rollouts
from benchmarks.rollout_providers import Generate, SortedSampler, current
from benchmarks.rollout_workloads import Workload
from benchmarks.rollouts import as_markdown, measure
from sgsd_lightning.engines import GenerationRequest
from sgsd_lightning.types import SamplingSettings


@pytest.fixture
def workload(
    make_model: Callable[..., PreTrainedModel],
    make_request: Callable[[int, int], GenerationRequest],
    tokenizer: PreTrainedTokenizerBase,
) -> Workload:
    return Workload(
        name="tiny",
        model=make_model(end_bias=3.0),
        tokenizer=tokenizer,
        requests=[make_request(3 + 5 * (seed % 3), seed) for seed in range(14)],
        sampling=SamplingSettings(
            max_new_tokens=18, sampling_temperature=1.2, sampling_top_k=60, sampling_top_p=0.97, sampling_min_p=1e-3
        ),
        batch_size=4,
    )


@pytest.mark.parametrize("has_static_cache", [False, True])
def test_the_engine_samples_what_transformers_generation_samples_with_the_same_numbers(
    workload: Workload, has_static_cache: bool
) -> None:
    expected = Generate(SortedSampler, has_static_cache=has_static_cache)(workload)
    assert len({len(completion) for completion in expected}) > 3
    assert current(workload) == expected


def test_a_table_names_every_provider_and_what_it_gains(workload: Workload) -> None:
    rows = measure(workload, ["before: generate", "now: TransformersEngine"], repeats=1)
    table = as_markdown({"rows": rows, "sampler": []})
    assert "now: TransformersEngine" in table
    assert table.count("14 of 14") == 2


def test_rollouts_of_a_step_are_the_same_together_and_micro_batch_by_micro_batch(workload: Workload) -> None:
    rows = step_rollouts.measure(workload, (2, 7), repeats=1)
    assert [row["rollouts_per_micro_batch"] for row in rows] == [7, 2]
    assert [row["same_completions"] for row in rows] == [14, 14]
    assert all(row["tokens_per_second_before"] > 0 for row in rows)
