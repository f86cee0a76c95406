"""Problems and prompts: what training starts from."""

from sgsd_lightning.data.module import ProblemDataModule, ProblemLoader
from sgsd_lightning.data.named_sets import NAMED_SETS, NamedProblems, load_problem_set
from sgsd_lightning.data.prompts import ChatPrompts, PromptRole
from sgsd_lightning.data.sources import DatasetProblems, JsonlProblems, ProblemFields, ProblemSource

__all__ = [
    "NAMED_SETS",
    "ChatPrompts",
    "DatasetProblems",
    "JsonlProblems",
    "NamedProblems",
    "ProblemDataModule",
    "ProblemFields",
    "ProblemLoader",
    "ProblemSource",
    "PromptRole",
    "load_problem_set",
]
