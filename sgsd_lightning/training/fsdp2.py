"""`trainer.strategy: fsdp2`: Lightning's ModelParallelStrategy with what sharding a policy needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy, StrategyRegistry
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from transformers import PreTrainedModel

from sgsd_lightning.checkpoints.folders import METADATA_FILENAME, is_sharded_checkpoint, recovered, replace_checkpoint
from sgsd_lightning.distributed.sharding import ComputeDtype, ShardingSettings, shard_policy
from sgsd_lightning.policy.views import PolicyView, ShadowTeacher
from sgsd_lightning.scoring.forward import bind_score

TENSOR_PARALLEL_REFUSAL = (
    "tensor parallelism is not supported: the head's kernels read the whole vocabulary on every process, and the "
    "query and key norms of Qwen3 would need a plan of their own; leave tensor_parallel_size at 1 and raise the number "
    "of processes, which fsdp2 shards over"
)


class FSDP2Strategy(ModelParallelStrategy):
    """Fully sharded data parallelism by torch's ``fully_shard``, over all processes of all nodes.

    Keep ``trainer.precision`` at ``32-true``: what is computed in is ``param_dtype``.

    Args:
        param_dtype: See :class:`~sgsd_lightning.distributed.sharding.ShardingSettings`, as the two that follow.
        reduce_dtype: See there.
        reshard_after_forward: See there.
        save_distributed_checkpoint: A checkpoint is a folder to which every process writes its shards; off gathers
            everything on the first process and writes one file.
        tensor_parallel_size: Only 1.
        process_group_backend: As Lightning's.
        timeout_minutes: After how long a process gives up waiting for another.
    """

    def __init__(
        self,
        param_dtype: ComputeDtype | None = None,
        reduce_dtype: ComputeDtype = "float32",
        reshard_after_forward: bool = True,
        save_distributed_checkpoint: bool = True,
        tensor_parallel_size: int = 1,
        process_group_backend: str | None = None,
        timeout_minutes: float = 30.0,
    ) -> None:
        if tensor_parallel_size != 1:
            raise ValueError(
                f"trainer.strategy.tensor_parallel_size = {tensor_parallel_size}: {TENSOR_PARALLEL_REFUSAL}"
            )
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.sharding = ShardingSettings(
            param_dtype=param_dtype,
            reduce_dtype=reduce_dtype,
            reshard_after_forward=reshard_after_forward,
        )

    def setup_environment(self) -> None:
        # Lightning's own default is the number of nodes
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: PreTrainedModel) -> None:
        """Shard a policy's model in place."""
        shard_policy(model, self.device_mesh["data_parallel"], self.sharding)
        bind_score(model)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a folder of shards under another name first, so that one half written never counts as a checkpoint."""
        if not self._save_distributed_checkpoint:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        path = Path(self.broadcast(filepath))
        partial = path.with_name(f"{path.name}.partial")
        if self.is_global_zero and partial.exists():
            shutil.rmtree(partial)
        self.barrier()
        super().save_checkpoint(checkpoint, partial, storage_options)
        self.barrier()
        if self.is_global_zero:
            replace_checkpoint(partial, path)
        self.barrier()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state; for a single file by the numbers that a process without sharding gives parameters."""
        assert self.model is not None
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=not self._save_distributed_checkpoint, cpu_offload=True)
        state: dict[str, Any] = get_optimizer_state_dict(self.model, inner, options=options)
        if self._save_distributed_checkpoint or not state:
            return state
        names = [name for group in state["param_groups"] for name in group["params"]]
        return _rekeyed(state, {name: number for number, name in enumerate(names)})

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load model and optimizer from a folder of shards or a single file; the rest of the checkpoint is returned.

        Frozen weights that a checkpoint leaves out stay as they were loaded.
        """
        path = recovered(Path(self.broadcast(checkpoint_path)))
        load = self._load_folder if is_sharded_checkpoint(path) else self._load_file
        return load(path, weights_only)

    def _load_folder(self, path: Path, weights_only: bool | None) -> dict[str, Any]:
        assert self.model is not None
        saved = _saved_names(path)
        weights = {name: value for name, value in get_model_state_dict(self.model).items() if name in saved}
        distributed_checkpoint.load({"state_dict": weights}, checkpoint_id=path)
        self.model.load_state_dict(weights, strict=False)
        for index, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{index}": get_optimizer_state_dict(self.model, optimizer)}
            distributed_checkpoint.load(state, checkpoint_id=path)
            set_optimizer_state_dict(self.model, optimizer, state[f"optimizer_{index}"])
        rest: dict[str, Any] = torch.load(path / METADATA_FILENAME, weights_only=weights_only)
        return {**rest, "state_dict_names": sorted(saved)}

    def _load_file(self, path: Path, weights_only: bool | None) -> dict[str, Any]:
        assert self.model is not None
        rest: dict[str, Any] = torch.load(path, mmap=True, map_location="cpu", weights_only=weights_only)
        weights = rest.pop("state_dict")
        saved = sorted(weights)
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self.model, weights, options=options)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, rest.get("optimizer_states", []), strict=False):
            ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            set_optimizer_state_dict(self.model, optimizer, _rekeyed(state, dict(enumerate(ordered))), options=options)
        return {**rest, "state_dict_names": saved}


def _rekeyed(state: Mapping[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state with its parameters called by other keys."""
    return {
        "state": {keys[key]: value for key, value in state["state"].items()},
        "param_groups": [
            {**group, "params": [keys[key] for key in group["params"]]} for group in state["param_groups"]
        ],
    }


def _saved_names(path: Path) -> set[str]:
    """Names of the weights in a folder of shards."""
    names: Mapping[str, Any] = distributed_checkpoint.FileSystemReader(path).read_metadata().state_dict_metadata
    return {name.removeprefix("state_dict.") for name in names if name.startswith("state_dict.")}


def shard(model: PreTrainedModel, strategy: Strategy) -> None:
    """Shard a policy's model in place, as a strategy that has a device mesh says.

    Raises:
        ValueError: if the strategy does not say how.
    """
    if not isinstance(strategy, FSDP2Strategy):
        raise ValueError(
            f"trainer.strategy {type(strategy).__name__} does not say how to shard a policy; take fsdp2 "
            "(sgsd_lightning.training.FSDP2Strategy)"
        )
    strategy.shard(model)


def check_strategy(trainer: Trainer, teacher_weights: PolicyView) -> None:
    """Refuse what would end in wrong numbers or in processes that wait for one another; make room for our batches.

    Raises:
        ValueError: naming the setting.
    """
    if trainer.precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"trainer.precision {trainer.precision} would round the model's rotary frequencies too; keep 32-true and "
            "set policy.dtype"
        )
    if not isinstance(trainer.strategy, FSDPStrategy):
        return
    if "auto_wrap_policy" in trainer.strategy.kwargs:
        raise ValueError(
            "trainer.strategy fsdp with an auto_wrap_policy gathers layers one by one, in which processes that sample "
            "completions of different lengths wait for one another; take fsdp2, or leave auto_wrap_policy out"
        )
    if isinstance(teacher_weights, ShadowTeacher):
        raise ValueError(
            "trainer.strategy fsdp flattens weights and takes a LiveTeacher only, not a "
            f"{type(teacher_weights).__name__}; take fsdp2"
        )
    # it would cast the floats of a batch, of which problems have none, and stumbles over frozen records
    trainer.strategy.precision_plugin.convert_input = lambda data: data  # type: ignore[method-assign]


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="Fully sharded data parallelism over all processes")
