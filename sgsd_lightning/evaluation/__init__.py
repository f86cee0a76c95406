"""Evaluation by sampling: while training, and of many samples that are kept."""

from sgsd_lightning.evaluation.while_training import EvaluationSettings, SampledEvaluation

__all__ = ["EvaluationSettings", "SampledEvaluation"]
