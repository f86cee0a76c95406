"""Bytes of weights, optimizer, teachers, caches and workspaces against real tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from sgsd_kernels import linear_logprob
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from sgsd_lightning.distributed.sharding import ShardingSettings, shard_policy
from sgsd_lightning.engines.cached_rows import CachedRows
from sgsd_lightning.engines.growing_layer import GROWTH_COLUMNS
from sgsd_lightning.engines.sampling import TokenSampler
from sgsd_lightning.planning.head_workspace import head_workspace_bytes
from sgsd_lightning.planning.memory import (
    OPTIMIZER,
    ROLLOUT,
    SAMPLING_BYTES_PER_LOGIT,
    STUDENT,
    TEACHERS,
    MemoryPlan,
    fits,
    key_value_bytes,
    plan_memory,
)
from sgsd_lightning.planning.model_shape import model_shape
from sgsd_lightning.planning.run_settings import RunSettings
from sgsd_lightning.policy import EmaTeacher, FrozenTeacher, LiveTeacher, PeriodicTeacher
from sgsd_lightning.types import SamplingSettings
from tests.planning.live_bytes import LiveBytes
from tests.planning.sized_runs import LORA, rollouts_batch, scored_model, small_policy, small_run

TEACHER_CLASSES = {"live": LiveTeacher, "frozen": FrozenTeacher, "ema": EmaTeacher, "periodic": PeriodicTeacher}
WORLD_SIZE = 8


def _bytes(plan: MemoryPlan, name: str, phase: str) -> int:
    return sum(item.bytes_by_phase.get(phase, 0) for item in plan.items if item.name.startswith(name))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("teacher", TEACHER_CLASSES)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_what_stays_is_what_a_step_leaves(lora: object, teacher: str, dtype: str) -> None:
    model = scored_model(lora=lora, dtype=dtype)
    teacher_weights = TEACHER_CLASSES[teacher]()
    teacher_weights.prepare(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model.score(rollouts_batch(), implementation="chunked").logprob.sum().backward()
    optimizer.step()
    moments = [
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if name in ("exp_avg", "exp_avg_sq")
    ]
    plan = plan_memory(small_run(model, dtype=dtype, teacher=teacher))
    for name, tensors in {
        "weights, trained": trained,
        "weights, frozen": frozen,
        "gradients": [parameter.grad for parameter in trained],
        "optimizer (AdamW)": moments,
        "teacher's own weights": list(teacher_weights.parameters()),
    }.items():
        assert _bytes(plan, name, STUDENT) == sum(tensor.nbytes for tensor in tensors if tensor is not None), name


@pytest.mark.parametrize(
    ("dtype", "autocast"), [("float32", None), ("bfloat16", None), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]
)
def test_the_cache_of_generation(dtype: str, autocast: str | None) -> None:
    model = scored_model(dtype=dtype)
    run = small_run(model, dtype=dtype, autocast_dtype=autocast)
    run = replace(run, completion_tokens=2 * GROWTH_COLUMNS - 5)
    ids = torch.ones(run.num_rollouts, run.prompt_tokens, dtype=torch.int64)
    precision = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.no_grad(), precision:
        cache = model.eval()(ids, use_cache=True).past_key_values
    CachedRows(cache, ids)
    for layer in cache.layers:
        for _ in range(run.completion_tokens - 1):  # the last token is not cached
            layer.update(layer.keys[..., :1, :], layer.values[..., :1, :])
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    measured = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    num_layers = run.shape.num_layers
    # one layer's exists twice for a moment
    assert key_value_bytes(run, run.num_rollouts, run.completion_tokens) * num_layers == measured * (num_layers + 1)


def test_the_cache_is_bounded_by_the_engine() -> None:
    run = small_run(small_policy().load_model(), rollout_batch_size=2)
    alone = key_value_bytes(run, 1, run.completion_tokens)
    assert key_value_bytes(run, 100, run.completion_tokens) == 2 * alone
    narrow = replace(run, rollout_batch_tokens=run.prompt_tokens + run.completion_tokens)
    assert key_value_bytes(narrow, 100, run.completion_tokens) == alone
    assert key_value_bytes(replace(run, rollout_batch_tokens=1), 100, run.completion_tokens) == alone


def test_the_rollouts_of_a_step_are_sampled_together_before_there_are_gradients() -> None:
    run = small_run(small_policy().load_model())
    step = plan_memory(replace(run, accumulate_grad_batches=4))
    assert _bytes(step, "key-value cache", ROLLOUT) == 4 * _bytes(plan_memory(run), "key-value cache", ROLLOUT)
    assert _bytes(step, "gradients", ROLLOUT) == 0
    assert _bytes(step, "gradients", TEACHERS) > 0


@pytest.mark.parametrize(
    ("sampling", "most"),
    [
        (SamplingSettings(sampling_top_p=0.9), 1.0),
        (SamplingSettings(), 0.5),
        (SamplingSettings(sampling_temperature=1.1, sampling_top_p=0.95, sampling_top_k=20), 0.5),
    ],
    ids=["flat top-p", "plain", "paper"],
)
def test_sampling_needs_no_more_than_is_stated(sampling: SamplingSettings, most: float) -> None:
    logits = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0)) / 100
    with LiveBytes() as live, torch.no_grad():
        TokenSampler(sampling)(logits.bfloat16(), torch.tensor([0.3, 0.7], dtype=torch.float64))
    per_logit = live.peak / logits.numel() + 2  # the model's own
    assert per_logit <= most * SAMPLING_BYTES_PER_LOGIT


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_trained", [True, False], ids=["learning", "frozen"])
def test_the_chunked_head_needs_no_more_than_is_stated(is_trained: bool, dtype: str) -> None:
    policy = small_policy(lora=None if is_trained else LORA, dtype=dtype)
    run = small_run(policy.load_model(), dtype=dtype)
    run = replace(run, shape=replace(run.shape, vocab_size=20_000))
    num_rows, width = 600, run.shape.hidden_size
    hidden = torch.randn(num_rows, width, dtype=getattr(torch, dtype), requires_grad=True)
    weight = torch.randn(run.shape.vocab_size, width, dtype=hidden.dtype, requires_grad=is_trained)
    targets = torch.arange(num_rows)
    with LiveBytes() as live:
        loss = linear_logprob(hidden, weight, targets, implementation="chunked").logprob.sum()
        forward_peak = live.peak
        loss.backward()
    gradients = hidden.nbytes + (weight.nbytes if is_trained else 0)
    for measured, backward in ((forward_peak, False), (live.peak - gradients, True)):
        stated = head_workspace_bytes(run, num_rows, backward=backward)
        assert 0.5 * stated <= measured <= 1.05 * stated


def test_the_head_of_a_gpu_is_chosen_by_the_kernels_table() -> None:
    run = replace(small_run(small_policy().load_model()), accelerator="gpu")
    assert run.head == "cublas"
    assert replace(run, autocast_dtype="bfloat16").head == "triton"
    assert replace(run, accelerator="cpu").head == "chunked"
    assert head_workspace_bytes(replace(run, head_implementation="triton"), 9216, backward=False) == 4 * 4 * 9216 * 33


@pytest.fixture
def eight_pretended_processes() -> Iterator[None]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=WORLD_SIZE)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_shards_are_an_eighth(lora: object, eight_pretended_processes: None) -> None:
    model = scored_model(lora=lora)
    run = small_run(model, strategy="fsdp2", num_devices=WORLD_SIZE)
    shard_policy(model, init_device_mesh("cpu", (WORLD_SIZE,)), ShardingSettings())
    assert model_shape(model) == run.shape
    shards = dict.fromkeys((True, False), 0)
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        shards[parameter.requires_grad] += parameter.to_local().nbytes
    plan = plan_memory(run)
    # each parameter is cut along its first dimension, so that the first process may hold a little more
    assert _bytes(plan, "weights, trained", ROLLOUT) == pytest.approx(shards[True], rel=0.02)
    assert _bytes(plan, "weights, frozen", ROLLOUT) == pytest.approx(shards[False], rel=0.02)


def test_generation_gathers_the_whole_model_and_scoring_two_layers_and_the_root() -> None:
    model = small_policy().load_model()
    run = small_run(model, strategy="fsdp2", num_devices=WORLD_SIZE, param_dtype="bfloat16")
    plan = plan_memory(run)
    everything = sum(parameter.numel() for parameter in model.parameters())
    layer = sum(parameter.numel() for parameter in model.get_decoder().layers[0].parameters())
    assert _bytes(plan, "weights gathered", ROLLOUT) == 2 * everything
    assert _bytes(plan, "weights gathered", TEACHERS) == 2 * (everything - layer)  # of three layers
    kept = plan_memory(replace(run, reshard_after_forward=False))
    assert _bytes(kept, "weights gathered", STUDENT) == 2 * everything


def test_memory_is_flat_in_the_number_of_teachers_and_bounded_by_their_tokens() -> None:
    run = small_run(small_policy().load_model(), num_contexts=64, teacher_tokens_per_forward=4096)
    peak = plan_memory(run).total(TEACHERS)
    assert plan_memory(replace(run, num_contexts=640)).total(TEACHERS) == peak
    assert plan_memory(replace(run, teacher_tokens_per_forward=8192)).total(TEACHERS) > peak


def test_strategies_and_optimizers() -> None:
    run = replace(small_run(small_policy().load_model()), accelerator="gpu")
    plan = plan_memory(run)
    trained = _bytes(plan, "weights, trained", STUDENT)
    ddp = plan_memory(replace(run, strategy="ddp", num_devices=2))
    assert ddp.total(STUDENT) - plan.total(STUDENT) == trained  # buckets
    assert _bytes(plan, "optimizer's temporaries", OPTIMIZER) == trained
    assert _bytes(plan_memory(replace(run, is_optimizer_fused=True)), "optimizer's temporaries", OPTIMIZER) == 0


def test_generation_may_gather_layer_by_layer() -> None:
    run = replace(small_run(small_policy().load_model()), strategy="fsdp2", num_devices=2, accelerator="gpu")
    whole, by_layer = plan_memory(run), plan_memory(replace(run, gather_weights=False))
    assert _bytes(by_layer, "weights gathered", ROLLOUT) == _bytes(whole, "weights gathered", TEACHERS)
    assert _bytes(by_layer, "weights gathered", ROLLOUT) <= _bytes(whole, "weights gathered", ROLLOUT)


def test_a_card_keeps_a_tenth_in_reserve() -> None:
    assert fits(90, 100)
    assert not fits(91, 100)


def test_settings_that_cannot_be_are_refused() -> None:
    run = small_run(small_policy().load_model())
    with pytest.raises(ValueError, match="num_devices = 2"):
        replace(run, num_devices=2)
    with pytest.raises(ValueError, match="completion_tokens must be at least 1"):
        replace(run, completion_tokens=0)


def test_validation_is_a_phase_of_its_own() -> None:
    run: RunSettings = small_run(small_policy().load_model())
    assert plan_memory(run).evaluation_peak is None
    plan = plan_memory(replace(run, evaluation_rollouts=40, evaluation_completion_tokens=5000))
    assert plan.evaluation_peak is not None
    assert plan.evaluation_peak > plan.training_peak == plan_memory(run).training_peak
