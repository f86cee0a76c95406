"""The checks that constructors share, and constructors that must refuse what no comparison finds wrong."""

import math
from typing import Literal

import pytest

from sgsd_lightning.callbacks import RolloutTable
from sgsd_lightning.engines import TransformersEngine
from sgsd_lightning.objectives import PolicyGradient, SampledDivergence, WeightedSum
from sgsd_lightning.policy import EmaTeacher, RandomPolicy
from sgsd_lightning.skills import EmbeddingRetriever, EvidenceSettings
from sgsd_lightning.skills.audit import PruneRules
from sgsd_lightning.types import SamplingSettings
from sgsd_lightning.types.arguments import require, require_at_least, require_choice
from sgsd_lightning.verifiers import MathAnswer, NoisyVerifier, RewardFunction


def test_the_sentence_names_field_rule_and_value():
    with pytest.raises(ValueError, match=r"^data\.path must end in \.json; got 'a\.txt'$"):
        require(False, "data.path", "end in .json", "a.txt")
    require(True, "data.path", "end in .json", "a.json")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [(1, "n must be at least 2; got 1"), (2.5, r"n must be a whole number; got 2\.5"), ("3", "got '3'")],
)
def test_a_count_is_a_large_enough_whole_number(found, sentence):
    require_at_least(2, "n", 2)
    with pytest.raises(ValueError, match=sentence):
        require_at_least(2, "n", found)


def test_a_choice_lists_what_there_is():
    require_choice(Literal["max", "min"], "mode", "min")
    with pytest.raises(ValueError, match=r"^mode must be one of max, min; got 'mean'$"):
        require_choice(Literal["max", "min"], "mode", "mean")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SamplingSettings(sampling_temperature=math.nan), "sampling.sampling_temperature"),
        (lambda: SamplingSettings(sampling_temperature=math.inf), "sampling.sampling_temperature"),
        (lambda: SamplingSettings(sampling_top_p=math.nan), "sampling.sampling_top_p"),
        (lambda: SamplingSettings(max_new_tokens=1.5), "sampling.max_new_tokens"),
        (lambda: EvidenceSettings(weight=math.inf), "contexts.evidence.weight"),
        (lambda: EvidenceSettings(half_life_steps=math.nan), "contexts.evidence.half_life_steps"),
        (lambda: EmbeddingRetriever("some/model", batch_size=0), "retriever.batch_size"),
        (lambda: PruneRules(misleading_above=20), "prune.misleading_above"),
        (lambda: PolicyGradient(kl_weight=math.nan), "objective.kl_weight"),
        (lambda: SampledDivergence(advantage_clip=math.nan), "objective.advantage_clip"),
        (lambda: WeightedSum([SampledDivergence()], [math.nan]), "objective.weights"),
        (lambda: NoisyVerifier(MathAnswer(), flip_frac=math.nan), "verifier.flip_frac"),
        (lambda: RewardFunction("math.sqrt", accept_above=math.nan), "verifier.accept_above"),
        (lambda: RandomPolicy(num_heads=0), "policy.num_heads"),
        (lambda: RandomPolicy(num_kv_heads=0), "policy.num_kv_heads"),
        (lambda: RandomPolicy(num_layers=-1), "policy.num_layers"),
        (lambda: EmaTeacher(decay=math.nan), "teacher_weights.decay"),
        (lambda: RolloutTable(num_rows=-1), "rollout_table.num_rows"),
        (lambda: TransformersEngine(batch_size=math.nan), "engine.batch_size"),
    ],
)
def test_parts_refuse_nan_infinity_and_nothing(make, field):
    with pytest.raises(ValueError, match=rf"^{field} must .*; got "):
        make()
