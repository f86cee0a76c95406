"""On-policy self-distillation for LLM reasoning, as a PyTorch Lightning module.

The names below are loaded when they are first used, so that ``import sgsd_lightning`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgsd_lightning.callbacks.trainer import Trainer
    from sgsd_lightning.contexts import ContextBuilder, ProblemContextBuilder
    from sgsd_lightning.data import ProblemDataModule
    from sgsd_lightning.engines import RolloutEngine
    from sgsd_lightning.module import SelfDistillation
    from sgsd_lightning.objectives import Objective
    from sgsd_lightning.policy import PolicySource, PolicyView
    from sgsd_lightning.rollouts import Rollouter
    from sgsd_lightning.training import RunCallback
    from sgsd_lightning.types import Part
    from sgsd_lightning.verifiers import Verifier

__version__ = "0.1.0"

_PLACES = {
    "ContextBuilder": "contexts",
    "Objective": "objectives",
    "Part": "types",
    "PolicySource": "policy",
    "PolicyView": "policy",
    "ProblemContextBuilder": "contexts",
    "ProblemDataModule": "data",
    "RolloutEngine": "engines",
    "Rollouter": "rollouts",
    "RunCallback": "training",
    "SelfDistillation": "module",
    "Trainer": "callbacks.trainer",
    "Verifier": "verifiers",
}
"""Public name to the module of this package that has it."""

__all__ = [
    "ContextBuilder",
    "Objective",
    "Part",
    "PolicySource",
    "PolicyView",
    "ProblemContextBuilder",
    "ProblemDataModule",
    "RolloutEngine",
    "Rollouter",
    "RunCallback",
    "SelfDistillation",
    "Trainer",
    "Verifier",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
