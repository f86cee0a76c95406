"""The mathematics of SGSD on hidden states and log-probabilities; needs torch alone.

Shapes: N rows of hidden states, D their width, V tokens in the vocabulary; B rollouts, K teacher contexts, T
completion tokens, S slots of a local support. All logarithms are natural.
"""

from __future__ import annotations

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.gate import (
    GatedPolarityOutput,
    GateSettings,
    PolarityRule,
    gate,
    gated_loss,
    gated_polarity,
)
from sgsd_kernels.linear_logprob import linear_logprob
from sgsd_kernels.local_support import TeacherSupport, gated_support, teacher_support
from sgsd_kernels.reference import LogprobOutput
from sgsd_kernels.support_logprob import support_logprob

__all__ = [
    "GateSettings",
    "GatedPolarityOutput",
    "Implementation",
    "LogprobOutput",
    "PolarityRule",
    "TeacherSupport",
    "Workload",
    "gate",
    "gated_loss",
    "gated_polarity",
    "gated_support",
    "linear_logprob",
    "resolve_implementation",
    "support_logprob",
    "teacher_support",
]
