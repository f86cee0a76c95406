"""Problems: what training starts from."""

from sgsd_lightning.data.datamodule import ProblemDataModule
from sgsd_lightning.data.generated import ReasoningGymProblems
from sgsd_lightning.data.loader import ProblemLoader
from sgsd_lightning.data.named_sets import NAMED_SETS, NamedProblems, load_problem_set
from sgsd_lightning.data.sources import DatasetProblems, JsonlProblems, ProblemFields, ProblemSource

__all__ = [
    "NAMED_SETS",
    "DatasetProblems",
    "JsonlProblems",
    "NamedProblems",
    "ProblemDataModule",
    "ProblemFields",
    "ProblemLoader",
    "ProblemSource",
    "ReasoningGymProblems",
    "load_problem_set",
]
