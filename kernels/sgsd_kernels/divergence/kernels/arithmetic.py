"""One vocabulary entry of a divergence and its slope, in float32; `sgsd_kernels.divergence.rule` has the equations."""

import triton
import triton.language as tl

from sgsd_kernels.triton_shared.arithmetic import LOWEST, NEGATIVE_INFINITY, exponential, raw_gradient


@triton.jit
def log_sum(left, right):
    """log(exp(left) + exp(right)), -inf where both are."""
    higher = tl.maximum(left, right)
    anchor = tl.where(higher == NEGATIVE_INFINITY, 0.0, higher)
    return higher + tl.log(1.0 + exponential(tl.minimum(left, right) - anchor))


@triton.jit
def absorb_total(logits, row_max, total):
    """Merge a block of final logits [rows, columns] into the running maximum and sum of exp(z - max) [rows]."""
    new_max = tl.maximum(row_max, tl.max(logits, axis=1))
    anchor = tl.where(new_max == NEGATIVE_INFINITY, 0.0, new_max)
    scale = exponential(tl.where(row_max == NEGATIVE_INFINITY, 0.0, row_max - anchor))
    return new_max, scale * total + tl.sum(exponential(logits - anchor[:, None]), axis=1)


@triton.jit
def weighted(probability, log_ratio):
    """Their product, 0 where the probability is 0 and the ratio may have no value."""
    return tl.where(probability == 0.0, 0.0, probability * log_ratio)


@triton.jit
def divergence_entries(student, teacher, beta, clip, KIND: tl.constexpr, HAS_CLIP: tl.constexpr):
    """(f, df/dlog q, q) of log-probabilities log q (`student`) and log p (`teacher`), which may be -inf."""
    if KIND == "forward_kl":
        teacher_probability = exponential(teacher)
        probability = exponential(student)
        value = weighted(teacher_probability, teacher - student)
        slope = -teacher_probability
    elif KIND == "reverse_kl":
        probability = exponential(student)
        value = weighted(probability, student - teacher)
        slope = value + probability
    else:
        # everything relative to the larger of both, which needs the fewest exponentials and registers
        is_lower = student < teacher
        higher = tl.maximum(tl.maximum(student, teacher), LOWEST)
        difference = tl.maximum(tl.minimum(student, teacher), LOWEST) - higher
        ratio = exponential(difference)
        lower_share = tl.where(is_lower, 1.0 - beta, beta)
        gap = tl.log(1.0 - lower_share * (1.0 - ratio))  # log m - higher
        probability = exponential(higher)
        from_higher = -(1.0 - lower_share) * probability * gap
        from_lower = lower_share * probability * ratio * (difference - gap)
        probability = tl.where(is_lower, probability * ratio, probability)
        slope = tl.where(is_lower, from_lower, from_higher)
        value = from_lower + from_higher
    if HAS_CLIP:
        slope = tl.where(value > clip, 0.0, slope)
        value = tl.minimum(value, clip)
    return value, slope, probability


@triton.jit
def divergence_gradient(
    logits,
    student,
    teacher,
    slope_sum,
    upstream,
    beta,
    clip,
    temperature,
    inverse_temperature,
    softcap,
    KIND: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
):
    """upstream * (g_v - q_v G), of the head's product, for a block [rows, columns]; G (`slope_sum`) is per row."""
    _, slope, probability = divergence_entries(student, teacher, beta, clip, KIND, HAS_CLIP)
    gradient = upstream[:, None] * (slope - probability * slope_sum[:, None])
    return raw_gradient(gradient, logits, temperature, inverse_temperature, softcap, HAS_SOFTCAP)
