"""`trainer.strategy: fsdp2`: Lightning's ModelParallelStrategy with what sharding a policy needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from transformers import PreTrainedModel

from sgsd_lightning.checkpoint_folder import METADATA_FILENAME, REPLACED_SUFFIX, is_sharded_checkpoint, recovered
from sgsd_lightning.policy.sharding import ComputeDtype, ShardingSettings, shard_policy

TENSOR_PARALLEL_REFUSAL = (
    "tensor parallelism is not supported: the head's kernels read the whole vocabulary on every process, and the "
    "query and key norms of Qwen3 would need a plan of their own; leave tensor_parallel_size at 1 and raise the number "
    "of processes, which fsdp2 shards over"
)


class FSDP2Strategy(ModelParallelStrategy):
    """Fully sharded data parallelism by torch's ``fully_shard``, over all processes of all nodes.

    Keep ``trainer.precision`` at ``32-true``: what is computed in is ``param_dtype``.

    Args:
        param_dtype: See :class:`~sgsd_lightning.policy.ShardingSettings`, as the three that follow.
        reduce_dtype: See there.
        reshard_after_forward: See there.
        offload_to_cpu: See there.
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
        offload_to_cpu: bool = False,
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
            offload_to_cpu=offload_to_cpu,
        )

    def setup_environment(self) -> None:
        # Lightning's own default is the number of nodes
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: PreTrainedModel) -> None:
        """Shard a policy's model in place."""
        shard_policy(model, self.device_mesh["data_parallel"], self.sharding)

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
            _replace(partial, path)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load model and optimizer from a folder of shards or a single file; the rest of the checkpoint is returned.

        Frozen weights that a checkpoint leaves out stay as they were loaded.
        """
        path = recovered(Path(self.broadcast(checkpoint_path)))
        if not is_sharded_checkpoint(path):
            names = sorted(torch.load(path, mmap=True, map_location="cpu", weights_only=weights_only)["state_dict"])
            return {**super().load_checkpoint(path, weights_only=weights_only), "state_dict_names": names}
        assert self.model is not None
        saved = _saved_names(path)
        weights = {
            name: value for name, value in get_model_state_dict(self.model).items() if f"state_dict.{name}" in saved
        }
        distributed_checkpoint.load({"state_dict": weights}, checkpoint_id=path)
        self.model.load_state_dict(weights, strict=False)
        for index, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{index}": get_optimizer_state_dict(self.model, optimizer)}
            distributed_checkpoint.load(state, checkpoint_id=path)
            set_optimizer_state_dict(
                self.model,
                optimizer,
                optim_state_dict=state[f"optimizer_{index}"],
                options=StateDictOptions(cpu_offload=True),
            )
        rest: dict[str, Any] = torch.load(path / METADATA_FILENAME, weights_only=weights_only)
        rest["state_dict_names"] = sorted(name.removeprefix("state_dict.") for name in saved)
        return rest


def _saved_names(path: Path) -> set[str]:
    names: Mapping[str, Tensor] = distributed_checkpoint.FileSystemReader(path).read_metadata().state_dict_metadata
    return {name for name in names if name.startswith("state_dict.")}


def _replace(partial: Path, path: Path) -> None:
    """Put a complete folder where an older one may stand; `recovered` knows of the moment in between."""
    old = path.with_name(path.name + REPLACED_SUFFIX)
    if old.exists():
        shutil.rmtree(old)
    if path.is_dir():
        path.rename(old)
    elif path.exists():
        path.unlink()
    partial.rename(path)
    if old.exists():
        shutil.rmtree(old)


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="Fully sharded data parallelism over all processes")
