"""The two factors of the head's product and its options, as the kernels take them: by pointer or by TMA descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sgsd_kernels.head.passes import HeadRows
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.configs import TileConfig

HALF_DTYPES = (torch.bfloat16, torch.float16)


def can_use_tma(*factors: Tensor) -> bool:
    """Whether the bulk copy engine can read the matrices: half precision, contiguous rows, 16-byte alignment.

    Rows must not overlap, as those of an expanded matrix do: the engine is not promised to read such.
    """
    return all(
        factor.dtype in HALF_DTYPES
        and factor.numel() > 0
        and factor.stride(1) == 1
        and (len(factor) == 1 or factor.stride(0) >= factor.shape[1])
        and factor.stride(0) * factor.element_size() % 16 == 0
        and factor.data_ptr() % 16 == 0
        for factor in factors
    )


def factor_arguments(hidden: Tensor, weight: Tensor, config: TileConfig, use_tma: bool) -> dict[str, Any]:
    """What `tiles.product_tile` needs of ``hidden`` [N, D] and ``weight`` [V, D], with the sizes of a tile."""
    width = hidden.shape[1]
    left: Any = hidden
    right: Any = weight
    if use_tma:
        left = TensorDescriptor.from_tensor(hidden, [config.block_rows, config.block_width])
        right = TensorDescriptor.from_tensor(weight, [config.block_columns, config.block_width])
    return {
        "hidden": left,
        "weight": right,
        "num_rows": hidden.shape[0],
        "num_columns": weight.shape[0],
        "width": width,
        "hidden_stride": hidden.stride(0),
        "hidden_column_stride": hidden.stride(1),
        "weight_stride": weight.stride(0),
        "weight_column_stride": weight.stride(1),
        "USE_TMA": use_tma,
        "EVEN_WIDTH": width % config.block_width == 0,
        "ROWS": config.block_rows,
        "COLUMNS": config.block_columns,
        "WIDTH": config.block_width,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }


def option_arguments(rows: HeadRows) -> dict[str, Any]:
    """Bias, softcap and temperature, as `arithmetic.final_logits` takes them."""
    softcap = rows.options.softcap
    return {
        "bias": rows.hidden if rows.bias is None else rows.bias,  # any pointer will do where there is none
        "inverse_temperature": 1.0 / rows.options.temperature,
        "softcap": 1.0 if softcap is None else softcap,
        "HAS_BIAS": rows.bias is not None,
        "HAS_SOFTCAP": softcap is not None,
    }


TRITON_TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def factor_signature(
    dtype: torch.dtype, config: TileConfig, use_tma: bool
) -> tuple[dict[str, str], dict[str, Any], frozenset[str]]:
    """(signature, constexprs, arguments divisible by 16) of `factor_arguments` for the widths of real models."""
    name = TRITON_TYPES[dtype]
    left, right = f"*{name}", f"*{name}"
    if use_tma:
        left = f"tensordesc<{name}[{config.block_rows}, {config.block_width}]>"
        right = f"tensordesc<{name}[{config.block_columns}, {config.block_width}]>"
    signature = {
        "hidden": left,
        "weight": right,
        "num_rows": "i32",
        "num_columns": "i32",
        "width": "i32",
        "hidden_stride": "i32",
        "hidden_column_stride": "constexpr",
        "weight_stride": "i32",
        "weight_column_stride": "constexpr",
    }
    constexprs = {
        "hidden_column_stride": 1,
        "weight_column_stride": 1,
        "USE_TMA": use_tma,
        "EVEN_WIDTH": True,
        "ROWS": config.block_rows,
        "COLUMNS": config.block_columns,
        "WIDTH": config.block_width,
    }
    divisible = {"width", "hidden_stride", "weight_stride"} | (set() if use_tma else {"hidden", "weight"})
    return signature, constexprs, frozenset(divisible)


def product_paths(capability: int) -> list[tuple[bool, torch.dtype]]:
    """(use_tma, dtype) of every way in which tiles are multiplied on a device of the compute ``capability``."""
    pointers = [(False, torch.bfloat16), (False, torch.float32)]
    return [(True, torch.bfloat16), *pointers] if capability >= 90 else pointers


ROWS_OF_ANY_LENGTH = ("width", "hidden_stride", "weight_stride")
"""Arguments that are no multiple of 16 where the width is not."""


def option_variants(specimen: Specimen) -> Iterator[Specimen]:
    """A specimen of `factor_arguments` and `option_arguments` with each option that is off in it."""
    biases: dict[str, Any] = {name: True for name in specimen.constexprs if name.endswith("HAS_BIAS")}
    yield specimen.variant("bias", **biases)
    yield specimen.variant("softcap", HAS_SOFTCAP=True)


def path_name(use_tma: bool, dtype: torch.dtype) -> str:
    """A specimen's name of a path."""
    return f"{'tma' if use_tma else 'pointer'}/{str(dtype).removeprefix('torch.')}"


def expected_instructions(capability: int, use_tma: bool, dtype: torch.dtype) -> frozenset[str]:
    """What the machine code of a path must hold on Hopper."""
    if capability != 90 or dtype == torch.float32:
        return frozenset()
    return frozenset({"wgmma", "tma"} if use_tma else {"wgmma"})


OPTION_SIGNATURE = {"bias": "*fp32", "inverse_temperature": "fp32", "softcap": "fp32"}
