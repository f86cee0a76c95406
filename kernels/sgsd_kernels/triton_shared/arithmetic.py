"""Elementwise arithmetic that the kernels share, in float32."""

import triton
import triton.language as tl

NEGATIVE_INFINITY = tl.constexpr(float("-inf"))
LOWEST = tl.constexpr(-3.4028234663852886e38)
LOG2_E = tl.constexpr(1.4426950408889634)
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""Whether the kernels of this process run in Triton's interpreter."""


@triton.jit
def exponential(x):
    """exp(x), 0 below 2^-126: `tl.exp` keeps what is smaller, at three more instructions per number."""
    return tl.exp2(x * LOG2_E)


@triton.jit
def hyperbolic_tangent(x):
    """tanh(x), within 1e-7 of the truth and to full relative precision near 0."""
    decay = exponential(-2.0 * tl.abs(x))
    far = (1.0 - decay) / (1.0 + decay)
    far = tl.where(x < 0, -far, far)
    square = x * x
    series = -17.0 / 315.0 + square * (62.0 / 2835.0)
    series = -1.0 / 3.0 + square * (2.0 / 15.0 + square * series)
    near = x * (1.0 + square * series)
    return tl.where(tl.abs(x) < 0.25, near, far)


@triton.jit
def exponential_minus_one(x):
    """exp(x) - 1 for x <= 0, to full relative precision near 0."""
    series = 1.0 + x / 7.0
    series = 1.0 + x / 6.0 * series
    series = 1.0 + x / 5.0 * series
    series = 1.0 + x / 4.0 * series
    series = 1.0 + x / 3.0 * series
    series = 1.0 + x / 2.0 * series
    return tl.where(x > -0.35, x * series, exponential(x) - 1.0)


@triton.jit
def log_one_plus(x):
    """log(1 + x) for -1/2 <= x <= 0, to full relative precision, as 2 artanh(x / (2 + x))."""
    s = x / (2.0 + x)
    square = s * s
    series = 1.0 / 13.0 + square / 15.0
    series = 1.0 / 11.0 + square * series
    series = 1.0 / 9.0 + square * series
    series = 1.0 / 7.0 + square * series
    series = 1.0 / 5.0 + square * series
    series = 1.0 / 3.0 + square * series
    return 2.0 * s * (1.0 + square * series)


@triton.jit
def final_logits(
    raw,
    columns,
    bias,
    vocab_size,
    inverse_temperature,
    softcap,
    HAS_BIAS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
):
    """Final logits [rows, columns] from the head's product: bias, softcap, temperature; -inf from `vocab_size` on."""
    is_real = columns < vocab_size
    if HAS_BIAS:
        raw += tl.load(bias + columns, mask=is_real, other=0.0).to(tl.float32)[None, :]
    if HAS_SOFTCAP:
        raw = softcap * hyperbolic_tangent(raw / softcap)
    return tl.where(is_real[None, :], raw * inverse_temperature, NEGATIVE_INFINITY)


@triton.jit
def raw_gradient(gradient, logits, temperature, inverse_temperature, softcap, HAS_SOFTCAP: tl.constexpr):
    """The gradient of the head's product from that of the final `logits`."""
    gradient = gradient * inverse_temperature
    if HAS_SOFTCAP:
        tanh = logits * (temperature / softcap)
        gradient = tl.where(gradient == 0.0, 0.0, gradient * (1.0 - tanh * tanh))
    return gradient


@triton.jit
def any_within(target, first_column, COLUMNS: tl.constexpr):
    """Whether any row's target is one of the COLUMNS columns from `first_column` on: one comparison per row."""
    is_here = (target >= first_column) & (target < first_column + COLUMNS)
    return tl.max(is_here.to(tl.int32)) > 0


@triton.jit
def absorb(
    logits,
    first_column,
    target,
    row_max,
    total,
    centred,
    target_logit,
    ENTROPY: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Merge a block of final logits [rows, COLUMNS] into the running statistics [rows].

    `total` and `centred` are the sums of exp(z - max) and of (z - max) exp(z - max). A row that is -inf so far keeps
    a maximum of -inf and a total of 0.
    """
    if any_within(target, first_column, COLUMNS):
        is_target = (first_column + tl.arange(0, COLUMNS))[None, :] == target[:, None]
        found = tl.max(tl.where(is_target, logits, NEGATIVE_INFINITY), axis=1)
        target_logit = tl.maximum(target_logit, found)
    new_max = tl.maximum(row_max, tl.max(logits, axis=1))
    anchor = tl.where(new_max == NEGATIVE_INFINITY, 0.0, new_max)
    shift = tl.where(row_max == NEGATIVE_INFINITY, 0.0, row_max - anchor)
    scale = exponential(shift)
    difference = logits - anchor[:, None]
    weights = exponential(difference)
    if ENTROPY:
        moved = scale * (centred + shift * total)
        centred = moved + tl.sum(tl.maximum(difference, LOWEST) * weights, axis=1)  # 0 * -inf is NaN
    total = scale * total + tl.sum(weights, axis=1)
    return new_max, total, centred, target_logit


@triton.jit
def logprob_gradient(
    logits, first_column, target, row_max, log_normalizer, target_gradient, lse_gradient, COLUMNS: tl.constexpr
):
    """d(target_gradient * log p(target) + lse_gradient * lse) / dlogits, for a block of final logits [rows, COLUMNS].

    Equals target_gradient * 1[column = target] + (lse_gradient - target_gradient) * p.
    """
    probability = exponential(logits - row_max[:, None] - log_normalizer[:, None])
    gradient = (lse_gradient - target_gradient)[:, None] * probability
    # no branch as in `absorb`: after one, ptxas 12.8 serialises the products of Triton 3.6
    is_target = (first_column + tl.arange(0, COLUMNS))[None, :] == target[:, None]
    return gradient + tl.where(is_target, target_gradient[:, None], 0.0)
