"""The divergence of rows of logits that the library's product left in float32, a program per row.

`mixture_kernel` turns a teacher's logits into the mixture's log-probabilities, teacher by teacher. `row_kernel` reads
the student's logits and the teachers' side: log-sum-exps, then entries, then the gradient of the logits, each in a walk
over the row.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sgsd_kernels.divergence.kernels.arithmetic import absorb_total, divergence_entries, divergence_gradient, log_sum
from sgsd_kernels.divergence.kernels.operands import divergence_arguments
from sgsd_kernels.divergence.passes import RowDivergence
from sgsd_kernels.divergence.rule import Divergence
from sgsd_kernels.head.kernels.dlogits import dlogits_dtype
from sgsd_kernels.head.passes import HeadRows, Normalizer
from sgsd_kernels.triton_shared.arithmetic import NEGATIVE_INFINITY, final_logits
from sgsd_kernels.triton_shared.catalogue import Specimen
from sgsd_kernels.triton_shared.operands import OPTION_SIGNATURE, option_arguments

BLOCK = 4096
NUM_WARPS = 16


@triton.jit
def _load_logits(
    start,
    first,
    first_column,
    last_column,
    bias,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Final logits [1, COLUMNS] from column `first` on, of a row at `start` that begins with `first_column`."""
    columns = first + tl.arange(0, COLUMNS)
    raw = tl.load(start + (columns - first_column), mask=columns < last_column, other=0.0)
    return final_logits(raw[None, :], columns, bias, last_column, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)


@triton.jit
def mixture_kernel(
    logits,
    mixture,
    row_stride,
    bias,
    row_max,
    log_normalizer,
    log_weight,
    first_column,
    last_column,
    inverse_temperature,
    softcap,
    IS_FIRST: tl.constexpr,
    MEASURE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) + tl.arange(0, 1)
    offset = tl.program_id(0).to(tl.int64) * row_stride
    if MEASURE:
        highest = tl.full([1], NEGATIVE_INFINITY, tl.float32)
        total = tl.zeros([1], tl.float32)
        for first in range(first_column, last_column, COLUMNS):
            block = _load_logits(
                logits + offset, first, first_column, last_column, bias,
                inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP, COLUMNS,
            )  # fmt: skip
            highest, total = absorb_total(block, highest, total)
        remainder = tl.log(total)
        tl.store(row_max + row, highest)
        tl.store(log_normalizer + row, remainder)
    else:
        highest = tl.load(row_max + row)
        remainder = tl.load(log_normalizer + row)
    share = tl.load(log_weight + row)
    for first in range(first_column, last_column, COLUMNS):
        block = _load_logits(
            logits + offset, first, first_column, last_column, bias,
            inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP, COLUMNS,
        )  # fmt: skip
        block = block - highest[:, None] - remainder[:, None] + share[:, None]
        places = mixture + offset + (first - first_column + tl.arange(0, COLUMNS))[None, :]
        is_real = (first + tl.arange(0, COLUMNS) < last_column)[None, :]
        if not IS_FIRST:
            block = log_sum(block, tl.load(places, mask=is_real, other=0.0))
        tl.store(places, block, mask=is_real)


@triton.jit
def _load_teacher(
    start,
    first,
    first_column,
    last_column,
    bias,
    highest,
    remainder,
    inverse_temperature,
    softcap,
    IS_MIXTURE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Log-probabilities [1, COLUMNS] of the teachers: stored as such with IS_MIXTURE, else made from logits."""
    if IS_MIXTURE:
        columns = first + tl.arange(0, COLUMNS)
        places = start + (columns - first_column)
        return tl.load(places, mask=columns < last_column, other=NEGATIVE_INFINITY)[None, :]
    else:
        logits = _load_logits(
            start, first, first_column, last_column, bias,
            inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP, COLUMNS,
        )  # fmt: skip
        return logits - highest[:, None] - remainder[:, None]


@triton.jit
def row_kernel(
    student,
    teacher,
    out,
    row_stride,
    bias,
    teacher_bias,
    value,
    slope,
    row_max,
    log_normalizer,
    teacher_max,
    teacher_log_normalizer,
    upstream,
    first_column,
    last_column,
    temperature,
    inverse_temperature,
    softcap,
    beta,
    clip,
    KIND: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    IS_MIXTURE: tl.constexpr,
    MEASURE: tl.constexpr,
    GRADIENT: tl.constexpr,
    HAS_UPSTREAM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TEACHER_HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0) + tl.arange(0, 1)
    offset = tl.program_id(0).to(tl.int64) * row_stride
    student_max = tl.full([1], NEGATIVE_INFINITY, tl.float32)
    highest = tl.full([1], NEGATIVE_INFINITY, tl.float32)
    remainder = tl.zeros([1], tl.float32)
    slope_sum = tl.zeros([1], tl.float32)
    if MEASURE:
        student_total = tl.zeros([1], tl.float32)
        total = tl.zeros([1], tl.float32)
        for first in range(first_column, last_column, COLUMNS):
            logits = _load_logits(
                student + offset, first, first_column, last_column, bias,
                inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP, COLUMNS,
            )  # fmt: skip
            student_max, student_total = absorb_total(logits, student_max, student_total)
            if not IS_MIXTURE:
                logits = _load_logits(
                    teacher + offset, first, first_column, last_column, teacher_bias,
                    inverse_temperature, softcap, TEACHER_HAS_BIAS, HAS_SOFTCAP, COLUMNS,
                )  # fmt: skip
                highest, total = absorb_total(logits, highest, total)
        student_remainder = tl.log(student_total)
        if not IS_MIXTURE:
            remainder = tl.log(total)
            tl.store(teacher_max + row, highest)
            tl.store(teacher_log_normalizer + row, remainder)
        value_sum = tl.zeros([1], tl.float32)
        for first in range(first_column, last_column, COLUMNS):
            logits = _load_logits(
                student + offset, first, first_column, last_column, bias,
                inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP, COLUMNS,
            )  # fmt: skip
            mixture = _load_teacher(
                teacher + offset, first, first_column, last_column, teacher_bias, highest, remainder,
                inverse_temperature, softcap, IS_MIXTURE, TEACHER_HAS_BIAS, HAS_SOFTCAP, COLUMNS,
            )  # fmt: skip
            logprob = logits - student_max[:, None] - student_remainder[:, None]
            entry, entry_slope, _ = divergence_entries(logprob, mixture, beta, clip, KIND, HAS_CLIP)
            value_sum += tl.sum(entry, axis=1)
            slope_sum += tl.sum(entry_slope, axis=1)
        tl.store(row_max + row, student_max)
        tl.store(log_normalizer + row, student_remainder)
        tl.store(value + row, value_sum)
        tl.store(slope + row, slope_sum)
    else:
        student_max = tl.load(row_max + row)
        student_remainder = tl.load(log_normalizer + row)
        slope_sum = tl.load(slope + row)
        if not IS_MIXTURE:
            highest = tl.load(teacher_max + row)
            remainder = tl.load(teacher_log_normalizer + row)
    if GRADIENT:
        coefficient = tl.full([1], 1.0, tl.float32)
        if HAS_UPSTREAM:
            coefficient = tl.load(upstream + row)
        for first in range(first_column, last_column, COLUMNS):
            logits = _load_logits(
                student + offset, first, first_column, last_column, bias,
                inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP, COLUMNS,
            )  # fmt: skip
            mixture = _load_teacher(
                teacher + offset, first, first_column, last_column, teacher_bias, highest, remainder,
                inverse_temperature, softcap, IS_MIXTURE, TEACHER_HAS_BIAS, HAS_SOFTCAP, COLUMNS,
            )  # fmt: skip
            logprob = logits - student_max[:, None] - student_remainder[:, None]
            gradient = divergence_gradient(
                logits, logprob, mixture, slope_sum, coefficient, beta, clip,
                temperature, inverse_temperature, softcap, KIND, HAS_CLIP, HAS_SOFTCAP,
            )  # fmt: skip
            places = out + offset + (first - first_column + tl.arange(0, COLUMNS))[None, :]
            is_real = (first + tl.arange(0, COLUMNS) < last_column)[None, :]
            tl.store(places, gradient.to(out.dtype.element_ty), mask=is_real)


def absorb_teacher_(
    mixture: Tensor | None,
    logits: Tensor,
    rows: HeadRows,
    columns: slice,
    normalizer: Normalizer,
    log_weight: Tensor,
    *,
    measure: bool,
) -> Tensor:
    """The log-probabilities of the ``mixture`` [R, columns] with one more teacher, overwritten or made of ``logits``.

    Args:
        mixture: None before the first teacher.
        logits: [R, columns] of the head's product; ``rows`` are their rows.
        normalizer: [R], written with ``measure`` (``columns`` are then all), else read.
        log_weight: [R] of the teacher.
        measure: Whether the log-sum-exps are to be found.
    """
    target = logits if mixture is None else mixture
    mixture_kernel[(rows.num_rows,)](
        logits,
        target,
        logits.stride(0),
        row_max=normalizer.row_max,
        log_normalizer=normalizer.log_normalizer,
        log_weight=log_weight,
        first_column=columns.start,
        last_column=columns.stop,
        IS_FIRST=mixture is None,
        MEASURE=measure,
        COLUMNS=BLOCK,
        num_warps=NUM_WARPS,
        **option_arguments(rows),
    )
    return target


def divergence_rows_(
    student: Tensor,
    teacher: Tensor,
    rows: HeadRows,
    teacher_bias: Tensor | None,
    divergence: Divergence,
    columns: slice,
    found: RowDivergence,
    upstream: Tensor | None,
    *,
    is_mixture: bool,
    measure: bool,
    gradient: bool,
) -> Tensor:
    """One pass of `row_kernel`; the gradient [R, columns] of the student's product, or ``student`` without it.

    Args:
        student: [R, columns] of the head's product; the gradient overwrites it where the dtypes are one.
        teacher: [R, columns] of the one teacher's product, or with ``is_mixture`` log-probabilities of all.
        rows: The student's rows. teacher_bias: [V]. divergence: What to compute.
        columns: All of them with ``measure``.
        found: Of these rows, with the one teacher's normalizer; written with ``measure``, else read.
        upstream: [R], None for 1.
        is_mixture: What ``teacher`` is.
        measure: Whether to find what forward wants.
        gradient: Whether to make the gradient.
    """
    dtype = dlogits_dtype(rows.weight.dtype)
    in_place = not gradient or dtype == student.dtype
    out = student if in_place else torch.empty(student.shape, dtype=dtype, device=student.device)
    arguments: dict[str, Any] = {**option_arguments(rows), **divergence_arguments(divergence)}
    row_kernel[(rows.num_rows,)](
        student,
        teacher,
        out,
        student.stride(0),
        teacher_bias=student if teacher_bias is None else teacher_bias,
        value=found.value,
        slope=found.slope,
        row_max=found.student.row_max,
        log_normalizer=found.student.log_normalizer,
        teacher_max=found.teachers.row_max,
        teacher_log_normalizer=found.teachers.log_normalizer,
        upstream=student if upstream is None else upstream,
        first_column=columns.start,
        last_column=columns.stop,
        temperature=rows.options.temperature,
        IS_MIXTURE=is_mixture,
        MEASURE=measure,
        GRADIENT=gradient,
        HAS_UPSTREAM=upstream is not None,
        TEACHER_HAS_BIAS=teacher_bias is not None,
        COLUMNS=BLOCK,
        num_warps=NUM_WARPS,
        **arguments,
    )
    return out


def specimens(capability: int) -> Iterator[Specimen]:
    """Both row kernels; their code does not depend on the device."""
    span = dict.fromkeys(["row_stride", "first_column", "last_column"], "i32")
    options = {"HAS_BIAS": False, "HAS_SOFTCAP": False, "COLUMNS": BLOCK}
    for measure in (False, True):
        yield Specimen(
            name=f"divergence_rows/mixture{'/measure' if measure else ''}",
            kernel=mixture_kernel,
            signature=OPTION_SIGNATURE
            | span
            | dict.fromkeys(["logits", "mixture", "row_max", "log_normalizer", "log_weight"], "*fp32"),
            constexprs=options | {"IS_FIRST": False, "MEASURE": measure},
            num_warps=NUM_WARPS,
            num_stages=3,
            divisible_by_16=frozenset({"logits", "mixture", "row_stride", "first_column", "last_column"}),
            holds=frozenset({"16-byte loads", "16-byte stores"}),
        )
    vectors = ["value", "slope", "row_max", "log_normalizer", "teacher_max", "teacher_log_normalizer", "upstream"]
    numbers = ["temperature", "beta", "clip"]
    for measure in (False, True):
        for kind in ("forward_kl", "reverse_kl", "jsd"):
            yield Specimen(
                name=f"divergence_rows/{kind}{'/measure' if measure else ''}",
                kernel=row_kernel,
                signature=OPTION_SIGNATURE
                | span
                | dict.fromkeys(["student", "teacher", "teacher_bias", *vectors], "*fp32")
                | {"out": "*bf16"}
                | dict.fromkeys(numbers, "fp32"),
                constexprs=options
                | {"KIND": kind, "HAS_CLIP": True, "IS_MIXTURE": False, "MEASURE": measure, "GRADIENT": True}
                | {"HAS_UPSTREAM": not measure, "TEACHER_HAS_BIAS": False},
                num_warps=NUM_WARPS,
                num_stages=3,
                divisible_by_16=frozenset({"student", "teacher", "out", "row_stride", "first_column", "last_column"}),
                holds=frozenset({"16-byte loads", "16-byte stores"}),
            )
