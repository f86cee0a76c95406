"""The mathematics of SGSD on hidden states and log-probabilities; needs torch, and triton for the kernels.

Shapes: N rows of hidden states, D their width, V tokens in the vocabulary; B rollouts, K teacher contexts, T
completion tokens, S slots of a local support. All logarithms are natural.
"""

from __future__ import annotations

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.divergence.operator import linear_divergence
from sgsd_kernels.divergence.rule import DivergenceKind
from sgsd_kernels.gate.closed_form import gate, gated_loss
from sgsd_kernels.gate.head_loss import GatedHeadOutput, gated_polarity_head_loss
from sgsd_kernels.gate.on_support import gated_support
from sgsd_kernels.gate.operator import gated_polarity, ragged_gated_polarity
from sgsd_kernels.gate.settings import GatedPolarityOutput, GateSettings, PolarityRule
from sgsd_kernels.head.operator import linear_logprob
from sgsd_kernels.head.options import HeadOptions
from sgsd_kernels.head.passes import RowStatistics
from sgsd_kernels.head.reference import LogprobOutput
from sgsd_kernels.support.operator import TeacherSupport, support_logprob, teacher_support

__all__ = [
    "DivergenceKind",
    "GateSettings",
    "GatedHeadOutput",
    "GatedPolarityOutput",
    "HeadOptions",
    "Implementation",
    "LogprobOutput",
    "PolarityRule",
    "RowStatistics",
    "TeacherSupport",
    "Workload",
    "gate",
    "gated_loss",
    "gated_polarity",
    "gated_polarity_head_loss",
    "gated_support",
    "linear_divergence",
    "linear_logprob",
    "ragged_gated_polarity",
    "resolve_implementation",
    "support_logprob",
    "teacher_support",
]
