"""The settings of a run on which its memory and its operations depend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from sgsd_kernels import Workload
from sgsd_kernels.dispatch import TABLE

from sgsd_lightning.distributed.sharding import ComputeDtype
from sgsd_lightning.planning.model_shape import ModelShape
from sgsd_lightning.policy.loading import DtypeName
from sgsd_lightning.types.arguments import require_at_least

Strategy = Literal["single", "ddp", "fsdp2"]
Teacher = Literal["live", "frozen", "ema", "periodic"]
Accelerator = Literal["cpu", "gpu"]

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per number."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A run, as far as its memory and its operations go. Counts of tokens are those of a typical or a longest sequence.

    Whatever is said of one device holds for one process.
    """

    shape: ModelShape
    """With its adapters, which alone are trained if there are any."""
    dtype: DtypeName = "float32"
    """Of the weights; adapters are float32."""
    autocast_dtype: ComputeDtype | None = None
    """Of ``trainer.precision`` bf16-mixed or 16-mixed."""
    gradient_checkpointing: bool = False

    strategy: Strategy = "single"
    num_devices: int = 1
    accelerator: Accelerator = "gpu"
    param_dtype: ComputeDtype | None = None
    """Of gathered weights, as the three that follow of ``fsdp2`` alone."""
    reduce_dtype: ComputeDtype = "float32"
    reshard_after_forward: bool = True
    gather_weights: bool = True
    """Whether generation holds the whole model on every device."""

    teacher: Teacher = "live"
    num_contexts: int = 8
    teacher_tokens_per_forward: int = 16384
    head_implementation: str = "auto"

    problems_per_batch: int = 1
    """In one micro-batch of one device."""
    group_size: int = 1
    accumulate_grad_batches: int = 1
    prompt_tokens: int = 512
    teacher_prompt_tokens: int = 1024
    completion_tokens: int = 1024

    rollout_batch_size: int = 64
    rollout_batch_tokens: int = 262_144
    evaluation_rollouts: int = 0
    """Completions of one batch of validation on one device; 0 for a run without validation."""
    evaluation_completion_tokens: int = 1024

    optimizer: str = "AdamW"
    num_optimizer_moments: int = 2
    """Numbers that the optimizer keeps for each trained one, in its dtype."""
    is_optimizer_fused: bool = False
    """Whether the optimizer is fused, and so needs no temporaries."""

    def __post_init__(self) -> None:
        for name in ("num_devices", "problems_per_batch", "group_size", "prompt_tokens", "completion_tokens"):
            require_at_least(1, name, getattr(self, name))
        if self.strategy == "single" and self.num_devices != 1:
            raise ValueError(f"strategy single runs on 1 device; got num_devices = {self.num_devices}")

    @property
    def weight_bytes(self) -> int:
        """Of one weight of the model itself."""
        return BYTES[self.dtype]

    @property
    def trained_bytes(self) -> int:
        """Of one weight that is trained."""
        return 4 if self.shape.has_adapters else self.weight_bytes

    @property
    def gathered_bytes(self) -> int:
        """Of one weight of the model itself where it is used."""
        return self.weight_bytes if self.param_dtype is None or not self.is_sharded else BYTES[self.param_dtype]

    @property
    def stream_bytes(self) -> int:
        """Of one number of the residual stream, which has the embedding's dtype."""
        return self.gathered_bytes

    @property
    def compute_bytes(self) -> int:
        """Of one factor of a matrix product."""
        return BYTES[self.autocast_dtype] if self.autocast_dtype is not None else self.gathered_bytes

    @property
    def adapter_compute_bytes(self) -> int:
        """Of one factor of an adapter's product."""
        if self.autocast_dtype is not None:
            return self.compute_bytes
        return self.gathered_bytes if self.is_sharded and self.param_dtype is not None else 4

    @property
    def is_sharded(self) -> bool:
        """Whether weights, gradients and the optimizer's state are spread over the devices."""
        return self.strategy == "fsdp2"

    @property
    def num_shards(self) -> int:
        """The number of devices over which weights are sharded."""
        return self.num_devices if self.is_sharded else 1

    @property
    def num_trained(self) -> int:
        """Parameters with a gradient."""
        return self.shape.num_adapter_parameters if self.shape.has_adapters else self.shape.num_parameters

    @property
    def num_frozen(self) -> int:
        """Parameters without."""
        return self.shape.num_parameters if self.shape.has_adapters else 0

    @property
    def num_rollouts(self) -> int:
        """In one micro-batch of one device."""
        return self.problems_per_batch * self.group_size

    @property
    def num_step_rollouts(self) -> int:
        """In one optimizer step of one device, which are sampled together."""
        return self.num_rollouts * self.accumulate_grad_batches

    @property
    def student_length(self) -> int:
        """Tokens that the student reads of one rollout; the last predicts nothing."""
        return self.prompt_tokens + self.completion_tokens - 1

    @property
    def teacher_length(self) -> int:
        """Tokens that a teacher reads of one rollout."""
        return self.teacher_prompt_tokens + self.completion_tokens - 1

    @property
    def head(self) -> str:
        """The implementation that log-probabilities are computed by; ``auto`` as the kernels' table says.

        Where triton is installed and, on a GPU, from compute capability 8.0 on: what this machine has does not matter.
        """
        if self.head_implementation != "auto":
            return self.head_implementation
        is_gpu = self.accelerator == "gpu"
        workload = Workload(
            operation="linear_logprob",
            device_type="cuda" if is_gpu else "cpu",
            capability=90 if is_gpu else 0,
            dtypes=frozenset({torch.float32 if self.compute_bytes == 4 else torch.bfloat16}),
            width=self.shape.hidden_size,
        )
        rules = (rule for rule in TABLE if workload.operation in rule.operations and rule.applies(workload))
        return next((rule.implementation for rule in rules), "chunked")
