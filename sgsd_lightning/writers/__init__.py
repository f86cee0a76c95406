"""Skill writers and the language models behind them."""

from sgsd_lightning.writers.endpoint import EndpointModel
from sgsd_lightning.writers.language_model import Answer, LanguageModel
from sgsd_lightning.writers.language_model_writer import LanguageModelWriter
from sgsd_lightning.writers.local_model import LocalModel, TrainedPolicy

__all__ = ["Answer", "EndpointModel", "LanguageModel", "LanguageModelWriter", "LocalModel", "TrainedPolicy"]
