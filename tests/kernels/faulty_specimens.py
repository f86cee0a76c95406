"""Tiny kernels with one fault each, for the tests of the compile report: a module with the catalogue's `all_specimens`.

It is imported where kernels are compiled, never where they are interpreted.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import triton
import triton.language as tl
from sgsd_kernels.triton_shared.catalogue import Specimen


@triton.jit
def copy_kernel(source, out, SIZE: tl.constexpr):
    offsets = tl.arange(0, SIZE)
    tl.store(out + offsets, tl.load(source + offsets))


@triton.jit
def centre_kernel(source, out, SIZE: tl.constexpr):
    offsets = tl.arange(0, SIZE)
    block = tl.load(source + offsets)
    tl.store(out + offsets, block - tl.max(block))


@triton.jit
def accurate_exponential_kernel(source, out, SIZE: tl.constexpr):
    offsets = tl.arange(0, SIZE)
    tl.store(out + offsets, tl.exp(tl.load(source + offsets)))


@triton.jit
def register_product_kernel(source, out, SIZE: tl.constexpr):
    offsets = tl.arange(0, SIZE)
    places = offsets[:, None] * SIZE + offsets[None, :]
    block = tl.load(source + places)
    product = tl.dot((block.to(tl.float32) * 2.0).to(tl.bfloat16), tl.trans(block))
    tl.store(out + places, product)


@triton.jit
def square_kernel(source, out, width, SIZE: tl.constexpr):
    square = tl.zeros([SIZE, SIZE], tl.float32)
    for start in range(0, width, SIZE):
        block = source.load([0, start])
        square = tl.dot(block, block.T, square)
    offsets = tl.arange(0, SIZE)
    tl.store(out + offsets[:, None] * SIZE + offsets[None, :], square)


@triton.jit
def impossible_kernel(source, out, SIZE: tl.constexpr):
    tl.static_assert(SIZE == 0, "made to be refused")


def all_specimens(capability: int) -> list[Specimen]:
    """A sound kernel and one of every fault."""
    pointers = {"source": "*fp32", "out": "*fp32"}
    aligned = frozenset(pointers)

    def specimen(name: str, kernel: Any, size: int, *, expects: Iterable[str] = (), num_warps: int = 4) -> Specimen:
        return Specimen(
            name, kernel, pointers | {"SIZE": "constexpr"}, {"SIZE": size}, num_warps, 1, aligned, frozenset(expects)
        )

    return [
        specimen("sound", copy_kernel, 128),
        # 256 numbers per thread are kept until the maximum is known, and a thread has 255 registers
        specimen("spilling", centre_kernel, 8192, num_warps=1),
        specimen("without-products", copy_kernel, 256, expects=("wgmma", "tma")),
        specimen("impossible", impossible_kernel, 128),
        replace(specimen("narrow", copy_kernel, 128), divisible_by_16=frozenset(), holds=frozenset({"16-byte stores"})),
        specimen("accurate", accurate_exponential_kernel, 128),
        replace(specimen("from-registers", register_product_kernel, 64), signature={"source": "*bf16", "out": "*fp32"}),
        # 10 stages of 128 x 128 numbers of 2 bytes are 320 KiB, more than any device has
        Specimen(
            name="greedy",
            kernel=square_kernel,
            signature={"source": "tensordesc<bf16[128, 128]>", "out": "*fp32", "width": "i32", "SIZE": "constexpr"},
            constexprs={"SIZE": 128},
            num_warps=8,
            num_stages=10,
            divisible_by_16=frozenset({"out", "width"}),
        ),
    ]
