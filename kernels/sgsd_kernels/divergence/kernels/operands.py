"""What the tile kernels of the divergence take: both sides, options, divergence, and the sizes of their tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from sgsd_kernels.divergence.passes import DivergenceRows
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.passes import Normalizer
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.configs import TileConfig
from sgsd_kernels.triton_shared.operands import (
    OPTION_SIGNATURE,
    expected_instructions,
    factor_arguments,
    factor_signature,
    option_arguments,
    path_name,
    product_paths,
)

TEACHER_FACTORS = (
    "hidden",
    "weight",
    "num_columns",
    "width",
    "hidden_stride",
    "hidden_column_stride",
    "weight_stride",
    "weight_column_stride",
)


def divergence_config(capability: int, dtype: torch.dtype, use_tma: bool) -> TileConfig:
    """Tiles of which two fit into the registers; chosen as those of `configs`."""
    if dtype == torch.float32:
        return TileConfig(64, 32, 32, num_warps=4, num_stages=3, slices=4)
    if use_tma and capability < 100:
        return TileConfig(128, 128, 64, num_warps=8, num_stages=3, slices=4)
    num_splits = 33 if capability >= 90 else 27
    return TileConfig(128, 64, 64, num_warps=8, num_stages=3, slices=4, group_rows=32, num_splits=num_splits)


def shared_arguments(
    rows: DivergenceRows, student: Normalizer, teachers: Normalizer, config: TileConfig, use_tma: bool
) -> dict[str, Any]:
    """What forward and backward both take; ``student`` is of [R], ``teachers`` of [K * R]."""
    factors = factor_arguments(rows.teachers.hidden, rows.teachers.weight, config, use_tma)
    return {
        **factor_arguments(rows.student.hidden, rows.student.weight, config, use_tma),
        **option_arguments(rows.student),
        **{f"teacher_{name}": factors[name] for name in TEACHER_FACTORS},
        "TEACHER_EVEN_WIDTH": factors["EVEN_WIDTH"],
        "teacher_bias": rows.student.hidden if rows.teachers.bias is None else rows.teachers.bias,
        "TEACHER_HAS_BIAS": rows.teachers.bias is not None,
        "vocab_size": rows.student.vocab_size,
        "row_max": student.row_max,
        "log_normalizer": student.log_normalizer,
        "teacher_max": teachers.row_max,
        "teacher_log_normalizer": teachers.log_normalizer,
        "log_weight": student.row_max if rows.log_weight is None else rows.log_weight.contiguous(),
        "num_teachers": rows.num_teachers,
        "IS_MIXTURE": rows.log_weight is not None,
        "GROUP_ROWS": config.group_rows_of(rows.student.hidden.shape[1], rows.student.hidden.dtype),
        **divergence_arguments(rows.divergence),
    }


def divergence_arguments(divergence: Divergence) -> dict[str, Any]:
    """What `divergence_arithmetic.divergence_entries` takes."""
    return {
        "beta": divergence.beta,
        "clip": divergence.clip,
        "KIND": divergence.kind,
        "HAS_CLIP": divergence.token_clip is not None,
    }


SPECIMEN_KINDS: tuple[tuple[str, bool], ...] = (
    ("forward_kl", False),
    ("jsd", False),
    ("reverse_kl", True),
    ("jsd", True),
)
"""(kind, whether of a mixture) of what is compiled ahead of time: the kinds that need the least and the most."""


def has_variants(specimen: Specimen) -> bool:
    """Whether options are compiled too: for the JSD of one teacher, which needs most registers, in bfloat16."""
    return specimen.name.endswith("bfloat16/jsd")


def tile_specimens(capability: int) -> Iterator[tuple[str, torch.dtype, TileConfig, dict[str, Any]]]:
    """Path, dtype, tiles and the parts of a `Specimen` that both tile kernels have, by every path of the device."""
    for use_tma, dtype in product_paths(capability):
        for kind, is_mixture in SPECIMEN_KINDS if dtype != torch.float32 else SPECIMEN_KINDS[2:]:
            config = divergence_config(capability, dtype, use_tma)
            path = f"{path_name(use_tma, dtype)}/{kind}{'/mixture' if is_mixture else ''}"
            parts = {
                **_signature(dtype, config, use_tma, kind, is_mixture),
                "num_warps": config.num_warps,
                "num_stages": config.num_stages,
                "expects": expected_instructions(capability, use_tma, dtype),
            }
            yield path, dtype, config, parts


def _signature(dtype: torch.dtype, config: TileConfig, use_tma: bool, kind: str, is_mixture: bool) -> dict[str, Any]:
    signature, constexprs, divisible = factor_signature(dtype, config, use_tma)
    signature |= {f"teacher_{name}": signature[name] for name in TEACHER_FACTORS}
    signature |= OPTION_SIGNATURE | dict.fromkeys(["beta", "clip"], "fp32")
    signature |= dict.fromkeys(["row_max", "log_normalizer", "teacher_max", "teacher_log_normalizer"], "*fp32")
    signature |= {"teacher_bias": "*fp32", "log_weight": "*fp32", "vocab_size": "i32", "num_teachers": "i32"}
    constexprs |= {f"teacher_{name}": constexprs[name] for name in TEACHER_FACTORS if name in constexprs}
    constexprs |= {"TEACHER_EVEN_WIDTH": True, "HAS_BIAS": False, "TEACHER_HAS_BIAS": False, "HAS_SOFTCAP": False}
    constexprs |= {"KIND": kind, "HAS_CLIP": True, "IS_MIXTURE": is_mixture, "GROUP_ROWS": config.group_rows}
    divisible |= {f"teacher_{name}" for name in divisible}
    return {"signature": signature, "constexprs": constexprs, "divisible_by_16": divisible}
