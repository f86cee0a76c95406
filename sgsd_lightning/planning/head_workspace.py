"""Bytes that the head's kernels work in, from the sizes of their chunks in `sgsd_kernels`."""

from __future__ import annotations

from sgsd_kernels.head import chunked
from sgsd_kernels.head.gradients import WEIGHT_PART_LIMIT

from sgsd_lightning.planning.run_settings import RunSettings

_TRITON_CHUNK_BYTES = 128 * 2**20
_TRITON_ROWS = 4096
_CUBLAS_ROWS, _CUBLAS_COLUMNS = 4096, 8192
"""As in `sgsd_kernels.head.triton` and `head.cublas`, which cannot be imported where triton is not installed."""
_SPLITS = 33
_CHUNKS_ALIVE = 3


def head_workspace_bytes(run: RunSettings, num_rows: int, *, backward: bool) -> int:
    """Beyond inputs, outputs and their gradients, at the most.

    Args:
        run: Says which implementation is used, see `RunSettings.head`.
        num_rows: Positions that reach the head in one call.
        backward: Of a backward pass, which follows the forward pass; else of a forward pass alone.
    """
    implementation = run.head
    if implementation == "chunked":
        return _chunked(run, num_rows, backward=backward)
    if implementation == "triton":
        return _triton(run, num_rows, backward=backward)
    if implementation == "cublas":
        return _cublas(run, num_rows, backward=backward)
    # reference: logits, their log-softmax, and in backward the gradient of each
    return (4 if backward else 2) * 4 * num_rows * run.shape.vocab_size


def _chunked(run: RunSettings, num_rows: int, *, backward: bool) -> int:
    width, columns = run.shape.hidden_size, min(run.shape.vocab_size, chunked.VOCAB_CHUNK)
    logits = 4 * _CHUNKS_ALIVE * min(num_rows, chunked.ROW_CHUNK) * columns
    # half precision is multiplied as it is on CUDA, after a cast elsewhere
    is_cast = run.accelerator == "cpu" and run.compute_bytes < 4
    num_weight_parts = 3 if backward and _is_head_trained(run) else int(is_cast)
    rows = 4 * num_rows * width * (int(is_cast) + int(backward))
    return logits + 4 * num_weight_parts * columns * width + rows


def _triton(run: RunSettings, num_rows: int, *, backward: bool) -> int:
    if not backward:
        return 4 * 4 * num_rows * _SPLITS
    return _TRITON_CHUNK_BYTES + _gradient_accumulators(run, num_rows, _TRITON_ROWS)


def _cublas(run: RunSettings, num_rows: int, *, backward: bool) -> int:
    logits = 4 * min(num_rows, _CUBLAS_ROWS) * min(run.shape.vocab_size, _CUBLAS_COLUMNS)
    if not backward:
        return logits
    gradient = logits * run.compute_bytes // 4
    return logits + gradient + _gradient_accumulators(run, num_rows, _CUBLAS_ROWS)


def _gradient_accumulators(run: RunSettings, num_rows: int, row_chunk: int) -> int:
    width = run.shape.hidden_size
    if _is_head_trained(run):
        return 4 * num_rows * width + 2 * 4 * WEIGHT_PART_LIMIT
    return 2 * 4 * min(num_rows, row_chunk) * width


def _is_head_trained(run: RunSettings) -> bool:
    return not run.shape.has_adapters
