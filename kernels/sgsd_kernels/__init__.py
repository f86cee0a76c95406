"""The mathematics of SGSD on hidden states and log-probabilities; needs torch, and triton for the kernels.

Shapes: N rows of hidden states, D their width, V tokens in the vocabulary; B rollouts, K teacher contexts, T
completion tokens, S slots of a local support. All logarithms are natural.
"""

from __future__ import annotations

from sgsd_kernels.dispatch import Implementation, Workload, resolve_implementation
from sgsd_kernels.divergence import DivergenceKind
from sgsd_kernels.gate import (
    GatedPolarityOutput,
    GateSettings,
    PolarityRule,
    gate,
    gated_loss,
)
from sgsd_kernels.gated_head import GatedHeadOutput, gated_polarity_head_loss
from sgsd_kernels.gated_polarity import gated_polarity, ragged_gated_polarity
from sgsd_kernels.head import HeadOptions
from sgsd_kernels.head_passes import RowStatistics
from sgsd_kernels.linear_divergence import linear_divergence
from sgsd_kernels.linear_logprob import linear_logprob
from sgsd_kernels.local_support import TeacherSupport, gated_support, teacher_support
from sgsd_kernels.reference import LogprobOutput
from sgsd_kernels.support_logprob import support_logprob
from sgsd_kernels.vocab_parallel import merge_statistics, shard_gradients, shard_statistics

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
    "merge_statistics",
    "ragged_gated_polarity",
    "resolve_implementation",
    "shard_gradients",
    "shard_statistics",
    "support_logprob",
    "teacher_support",
]
