"""Problems and prompts: what training starts from."""

from sgsd_lightning.data.module import ProblemDataModule, ProblemLoader
from sgsd_lightning.data.prompts import ChatPrompts, PromptRole
from sgsd_lightning.data.sources import DatasetProblems, JsonlProblems, ProblemFields, ProblemSource

__all__ = [
    "ChatPrompts",
    "DatasetProblems",
    "JsonlProblems",
    "ProblemDataModule",
    "ProblemFields",
    "ProblemLoader",
    "ProblemSource",
    "PromptRole",
]
