"""Bytes on each device, item by item and phase by phase: arithmetic, not measured on a GPU.

What is approximate, and in which direction:

* Gradients are counted in the student's phase as a whole, though they come into being while activations go; with
  teachers only where several micro-batches make a step; in validation, which comes before they are freed. Rollouts are
  sampled before the first of a step.
* Activations are counted operator by operator for plain execution, see `sgsd_lightning.planning.activations`; on the
  CPU they agree with what torch's operators make to about a sixth (`tests/planning/test_activations.py`).
* Prompts and completions are all as long as given; what several prompts share is counted with each.
* While sampling, 52 bytes per entry of the logits of one step: the model's, their float32 copy, and 45 in the sampler
  where top-p meets a flat distribution and sorts it; without that case under half as many.
* The cache of generation grows by 128 tokens at a time: one layer's exists twice for a moment.
* FSDP2 holds two gathered layers (one computes, one is fetched), the root's group (embedding, final norm, head) from
  its forward to the end of its backward pass, and the gradient of a layer before it is spread. Generation gathers the
  whole model, unless ``rollouts.gather_weights`` is off.
* DDP keeps a second copy of the gradients in its buckets.
* AdamW by foreach, torch's default on a GPU, makes one temporary of the size of what is trained.
* 1 GiB is set aside for the device's context and the libraries' workspaces; the allocator's fragmentation is what the
  share of a card in `FITTING_FRAC` leaves room for.

Left out: local supports, divergences over the whole vocabulary, models of retrievers and judges, logged tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sgsd_lightning.engines.growing_layer import GROWTH_COLUMNS
from sgsd_lightning.planning.activations import no_grad_bytes, student_bytes, student_momentary_bytes
from sgsd_lightning.planning.head_workspace import head_workspace_bytes
from sgsd_lightning.planning.run_settings import BYTES, RunSettings

FITTING_FRAC = 0.9
"""A run fits when its peak is at most this share of a card."""
CONTEXT_BYTES = 2**30
SAMPLING_BYTES_PER_LOGIT = 52

ROLLOUT, TEACHERS, STUDENT, OPTIMIZER, EVALUATION = "rollout", "teachers", "student", "optimizer", "validation"
Counter = Callable[[RunSettings, int, int], int]
"""(run, completions, tokens of each) -> bytes of generating them."""
_ALL = (ROLLOUT, TEACHERS, STUDENT, OPTIMIZER, EVALUATION)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryItem:
    """One line of the table."""

    name: str
    bytes_by_phase: dict[str, int]
    """Phases that are not named do not hold it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """What one device holds."""

    items: tuple[MemoryItem, ...]
    phases: tuple[str, ...]

    def total(self, phase: str) -> int:
        """Bytes in that phase."""
        return sum(item.bytes_by_phase.get(phase, 0) for item in self.items)

    @property
    def training_peak(self) -> int:
        """Bytes in the phase of training that holds most."""
        return max(self.total(phase) for phase in self.phases if phase != EVALUATION)

    @property
    def evaluation_peak(self) -> int | None:
        """Bytes while validating; None for a run without."""
        return self.total(EVALUATION) if EVALUATION in self.phases else None


def fits(peak: int, card_bytes: float) -> bool:
    """Whether a peak leaves a card enough to spare."""
    return peak <= FITTING_FRAC * card_bytes


def plan_memory(run: RunSettings) -> MemoryPlan:
    """The bytes of every item of a run on one device."""
    items = [
        *_resident_items(run),
        *_weight_copies(run),
        _item("activations kept", {STUDENT: student_bytes(run)}),
        _item("activations of the moment", _momentary(run)),
        _item("head workspace", _head(run)),
        _item("key-value cache", _generating(run, key_value_bytes)),
        _item("logits while sampling", _generating(run, _sampling_bytes)),
        _item("optimizer's temporaries", {OPTIMIZER: _optimizer_temporaries(run)}),
    ]
    if run.accelerator == "gpu":
        items.append(_item("context and libraries", dict.fromkeys(_ALL, CONTEXT_BYTES)))
    phases = _ALL if run.evaluation_rollouts else _ALL[:-1]
    return MemoryPlan(items=tuple(item for item in items if any(item.bytes_by_phase.values())), phases=phases)


def key_value_bytes(run: RunSettings, num_rollouts: int, completion_tokens: int) -> int:
    """The cache at its longest, in the dtype of the keys' norm, which autocast leaves as wide as the weights.

    It has room for whole multiples of `GROWTH_COLUMNS` beyond the prompts.
    """
    shape = run.shape
    rows = _rows_at_a_time(run, num_rollouts, completion_tokens)
    num_growths = -(-(completion_tokens - 1) // GROWTH_COLUMNS)
    width = run.prompt_tokens + num_growths * GROWTH_COLUMNS
    per_number = max(run.stream_bytes, run.compute_bytes)
    per_layer = 2 * rows * width * shape.num_kv_heads * shape.head_dim * per_number
    return (shape.num_layers + 1) * per_layer


def _item(name: str, bytes_by_phase: dict[str, int]) -> MemoryItem:
    return MemoryItem(name=name, bytes_by_phase=bytes_by_phase)


def _resident_items(run: RunSettings) -> list[MemoryItem]:
    """What stays from the first step to the last."""
    trained = _per_shard(run, run.num_trained * run.trained_bytes)
    frozen = _per_shard(run, run.num_frozen * run.weight_bytes)
    sizes = {
        "weights, trained": trained,
        "weights, frozen": frozen,
        "gradient buckets of DDP": trained if run.strategy == "ddp" and run.num_devices > 1 else 0,
        f"optimizer ({run.optimizer})": run.num_optimizer_moments * trained,
        f"teacher's own weights ({run.teacher})": _shadow_bytes(run),
    }
    phases_with_gradients = (*((TEACHERS,) if run.accumulate_grad_batches > 1 else ()), STUDENT, OPTIMIZER, EVALUATION)
    items = [_item(name, dict.fromkeys(_ALL, size)) for name, size in sizes.items()]
    items.insert(2, _item("gradients", dict.fromkeys(phases_with_gradients, trained)))
    return items


def _shadow_bytes(run: RunSettings) -> int:
    """float32 values beside those that are trained; none where the teacher is the student or its frozen base."""
    if run.teacher == "live" or (run.teacher == "frozen" and run.shape.has_adapters):
        return 0
    return _per_shard(run, 4 * run.num_trained)


def _weight_copies(run: RunSettings) -> list[MemoryItem]:
    gathered = _gathered_bytes(run, num_layers=2)
    kept = gathered if run.reshard_after_forward else _gathered_bytes(run, num_layers=run.shape.num_layers)
    generating = _gathered_bytes(run, num_layers=run.shape.num_layers) if run.gather_weights else gathered
    exchanged = _exchange_bytes(run) if _shadow_bytes(run) else 0
    passing = _cast_bytes(run, is_kept=run.num_frozen == 0)
    student_casts = _cast_bytes(run, is_kept=run.num_frozen == 0 or not run.gradient_checkpointing)
    return [
        _item(
            "weights gathered by FSDP2",
            {ROLLOUT: generating, TEACHERS: gathered, STUDENT: kept, EVALUATION: generating},
        ),
        _item("gradients before they are spread", {STUDENT: _unsharded_gradient_bytes(run)}),
        _item("largest gradient before it is added", {STUDENT: _head_gradient_bytes(run)}),
        _item("weights exchanged for the teacher's", {TEACHERS: exchanged}),
        _item(
            "weights cast by autocast",
            {ROLLOUT: passing, TEACHERS: passing, STUDENT: student_casts, EVALUATION: passing},
        ),
    ]


def _gathered_bytes(run: RunSettings, num_layers: int) -> int:
    if not run.is_sharded:
        return 0
    shape = run.shape
    num_adapters = shape.num_adapter_parameters // shape.num_layers
    layer = shape.num_layer_parameters * run.gathered_bytes + num_adapters * run.adapter_compute_bytes
    return shape.num_root_parameters * run.gathered_bytes + num_layers * layer


def _unsharded_gradient_bytes(run: RunSettings) -> int:
    """A layer's gradient, and the buffers of it and of the one before that are being reduced; all of the root's."""
    if not run.is_sharded:
        return 0
    shape = run.shape
    reduce_bytes = BYTES[run.reduce_dtype]
    if shape.has_adapters:
        layer = shape.num_adapter_parameters // shape.num_layers
        return layer * (run.adapter_compute_bytes + 2 * reduce_bytes)
    layer = shape.num_layer_parameters * (run.gathered_bytes + 2 * reduce_bytes)
    return layer + shape.num_root_parameters * (run.gathered_bytes + reduce_bytes)


def _head_gradient_bytes(run: RunSettings) -> int:
    """The head's, in the dtype of the products and, where that is another one, in its own.

    FSDP2 begins every backward pass without a gradient to add to, but for the embedding's of a tied head.
    """
    shape = run.shape
    if shape.has_adapters or (run.is_sharded and not shape.tie_word_embeddings):
        return 0
    dtype_bytes = run.compute_bytes + (run.gathered_bytes if run.compute_bytes != run.gathered_bytes else 0)
    return shape.num_head_weights * dtype_bytes


def _exchange_bytes(run: RunSettings) -> int:
    if run.trained_bytes != 4:
        return _per_shard(run, run.num_trained * run.trained_bytes)
    shape = run.shape
    if shape.has_adapters:
        largest = max(layer.adapter_rank * max(layer.in_features, layer.out_features) for layer in shape.linear_layers)
    else:
        largest = max(shape.num_head_weights, *(layer.num_weights for layer in shape.linear_layers))
    return _per_shard(run, 4 * largest)


def _cast_bytes(run: RunSettings, *, is_kept: bool) -> int:
    """All casts at once, or those of the head and of one layer after the other."""
    if run.compute_bytes == run.gathered_bytes:
        return 0
    body = run.shape.num_linear_weights
    return run.compute_bytes * (run.shape.num_head_weights + (body if is_kept else body // run.shape.num_layers))


def _momentary(run: RunSettings) -> dict[str, int]:
    return {
        ROLLOUT: _generating(run, _prefill_bytes)[ROLLOUT],
        TEACHERS: no_grad_bytes(run, _teacher_tokens(run)),
        STUDENT: student_momentary_bytes(run),
        EVALUATION: _generating(run, _prefill_bytes)[EVALUATION],
    }


def _head(run: RunSettings) -> dict[str, int]:
    teacher_rows = min(run.num_rollouts * run.num_contexts * run.completion_tokens, _teacher_tokens(run))
    student_rows = run.num_rollouts * run.completion_tokens
    return {
        TEACHERS: head_workspace_bytes(run, teacher_rows, backward=False) if teacher_rows else 0,
        STUDENT: head_workspace_bytes(run, student_rows, backward=True),
    }


def _teacher_tokens(run: RunSettings) -> int:
    """Return the tokens of one forward pass; a sequence longer than the budget gets its own pass."""
    num_sequences = run.num_rollouts * run.num_contexts
    per_pass = max(1, run.teacher_tokens_per_forward // run.teacher_length)
    return min(num_sequences, per_pass) * run.teacher_length


def _generating(run: RunSettings, count: Counter) -> dict[str, int]:
    evaluated = run.evaluation_rollouts
    return {
        ROLLOUT: count(run, run.num_step_rollouts, run.completion_tokens),
        EVALUATION: count(run, evaluated, run.evaluation_completion_tokens) if evaluated else 0,
    }


def _rows_at_a_time(run: RunSettings, num_rollouts: int, completion_tokens: int) -> int:
    by_tokens = max(1, run.rollout_batch_tokens // (run.prompt_tokens + completion_tokens))
    return min(num_rollouts, run.rollout_batch_size, by_tokens)


def _prefill_bytes(run: RunSettings, num_rollouts: int, completion_tokens: int) -> int:
    return no_grad_bytes(run, _rows_at_a_time(run, num_rollouts, completion_tokens) * run.prompt_tokens)


def _sampling_bytes(run: RunSettings, num_rollouts: int, completion_tokens: int) -> int:
    rows = _rows_at_a_time(run, num_rollouts, completion_tokens)
    return SAMPLING_BYTES_PER_LOGIT * rows * run.shape.vocab_size


def _optimizer_temporaries(run: RunSettings) -> int:
    if run.accelerator == "cpu" or run.is_optimizer_fused:
        return 0
    return _per_shard(run, run.num_trained * run.trained_bytes)


def _per_shard(run: RunSettings, num_bytes: int) -> int:
    return -(-num_bytes // run.num_shards)
