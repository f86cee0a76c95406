"""The toy world: arithmetic whose conventions are ambiguous, a tiny model that has read them all, and a bank."""

from sgsd_lightning.toy.bank import load_toy_bank, toy_bank_path
from sgsd_lightning.toy.base_model import build_base_model
from sgsd_lightning.toy.convention_writer import ConventionWriter
from sgsd_lightning.toy.problems import toy_problems
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE
from sgsd_lightning.toy.world import SKILL_EVALUATION, TOY_BANK, ToyPolicy, ToyProblems

__all__ = [
    "PAIR_TEMPLATE",
    "SKILL_EVALUATION",
    "STUDENT_TEMPLATE",
    "TEACHER_TEMPLATE",
    "TOY_BANK",
    "ConventionWriter",
    "ToyPolicy",
    "ToyProblems",
    "build_base_model",
    "load_toy_bank",
    "toy_bank_path",
    "toy_problems",
]
