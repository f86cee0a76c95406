"""Small models and the settings that describe a run of them on the CPU."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from sgsd_lightning.planning.model_shape import model_shape
from sgsd_lightning.planning.run_settings import RunSettings
from sgsd_lightning.policy import LoraSettings, RandomPolicy
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import PackedBatch, pack
from sgsd_lightning.types import TokenSequence

LORA = LoraSettings(rank=8)
PROMPT_TOKENS, COMPLETION_TOKENS, NUM_ROLLOUTS = 48, 33, 3


def small_policy(**settings: object) -> RandomPolicy:
    """Three layers, whose widths are all different."""
    sizes = {"hidden_size": 128, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 384}
    return RandomPolicy(**{**sizes, **settings})  # type: ignore[arg-type]


def scored_model(**settings: object) -> PreTrainedModel:
    """Ready to score."""
    model = small_policy(**settings).load_model()
    bind_score(model)
    return model


def small_run(model: PreTrainedModel, **settings: object) -> RunSettings:
    """Three rollouts of 48 + 33 tokens."""
    run = RunSettings(
        shape=model_shape(model),
        accelerator="cpu",
        problems_per_batch=NUM_ROLLOUTS,
        prompt_tokens=PROMPT_TOKENS,
        completion_tokens=COMPLETION_TOKENS,
    )
    return replace(run, **settings)  # type: ignore[arg-type]


def rollouts_batch() -> PackedBatch:
    """The rollouts of `small_run`, with prompts of their own."""
    prompts = [tuple(range(first, first + PROMPT_TOKENS)) for first in range(NUM_ROLLOUTS)]
    completion = tuple(range(60, 60 + COMPLETION_TOKENS))
    return pack([TokenSequence.causal(prompt, completion) for prompt in prompts])
