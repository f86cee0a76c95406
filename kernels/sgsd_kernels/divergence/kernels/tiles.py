"""A tile of the student's log-probabilities and one of the teachers' mixture, made teacher by teacher."""

import triton
import triton.language as tl

from sgsd_kernels.divergence.kernels.arithmetic import log_sum
from sgsd_kernels.triton_shared.arithmetic import NEGATIVE_INFINITY, final_logits
from sgsd_kernels.triton_shared.tiles import product_tile


@triton.jit
def log_probabilities(
    hidden,
    weight,
    bias,
    row_max,
    log_normalizer,
    first_row,
    first_column,
    num_rows,
    num_columns,
    width,
    hidden_stride,
    hidden_column_stride,
    weight_stride,
    weight_column_stride,
    vocab_size,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    USE_TMA: tl.constexpr,
    EVEN_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Final logits of a tile, and their row's maximum and log-normaliser."""
    raw = product_tile(
        hidden, weight, first_row, first_column, num_rows, num_columns, width,
        hidden_stride, hidden_column_stride, weight_stride, weight_column_stride,
        ROWS, COLUMNS, WIDTH, USE_TMA, EVEN_WIDTH,
    )  # fmt: skip
    columns = first_column + tl.arange(0, COLUMNS)
    logits = final_logits(raw, columns, bias, vocab_size, inverse_temperature, softcap, HAS_BIAS, HAS_SOFTCAP)
    rows = first_row + tl.arange(0, ROWS)
    is_real = rows < num_rows
    highest = tl.load(row_max + rows, mask=is_real, other=0.0)
    remainder = tl.load(log_normalizer + rows, mask=is_real, other=0.0)
    return logits, logits - highest[:, None] - remainder[:, None]


@triton.jit
def mixture_tile(
    teacher_hidden,
    teacher_weight,
    teacher_bias,
    teacher_max,
    teacher_log_normalizer,
    log_weight,
    num_teachers,
    first_row,
    first_column,
    num_rows,
    teacher_num_columns,
    teacher_width,
    teacher_hidden_stride,
    teacher_hidden_column_stride,
    teacher_weight_stride,
    teacher_weight_column_stride,
    vocab_size,
    inverse_temperature,
    softcap,
    IS_MIXTURE: tl.constexpr,
    TEACHER_HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    USE_TMA: tl.constexpr,
    TEACHER_EVEN_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """log sum_k w_k p_k of a tile."""
    num_teacher_rows = num_rows * num_teachers
    if IS_MIXTURE:
        rows = first_row + tl.arange(0, ROWS)
        mixture = tl.full([ROWS, COLUMNS], NEGATIVE_INFINITY, tl.float32)
        for teacher in range(0, num_teachers):
            start = teacher * num_rows
            _, logprob = log_probabilities(
                teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, start + first_row,
                first_column, num_teacher_rows, teacher_num_columns, teacher_width, teacher_hidden_stride,
                teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride, vocab_size,
                inverse_temperature, softcap, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA, TEACHER_EVEN_WIDTH,
                ROWS, COLUMNS, WIDTH,
            )  # fmt: skip
            share = tl.load(log_weight + start + rows, mask=rows < num_rows, other=0.0)
            mixture = log_sum(mixture, logprob + share[:, None])
    else:
        _, mixture = log_probabilities(
            teacher_hidden, teacher_weight, teacher_bias, teacher_max, teacher_log_normalizer, first_row,
            first_column, num_teacher_rows, teacher_num_columns, teacher_width, teacher_hidden_stride,
            teacher_hidden_column_stride, teacher_weight_stride, teacher_weight_column_stride, vocab_size,
            inverse_temperature, softcap, TEACHER_HAS_BIAS, HAS_SOFTCAP, USE_TMA, TEACHER_EVEN_WIDTH,
            ROWS, COLUMNS, WIDTH,
        )  # fmt: skip
    return mixture
