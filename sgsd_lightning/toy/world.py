"""The toy world as parts of a configuration: its problems, its policy, its bank."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.data.sources import ProblemSource
from sgsd_lightning.policy import LoraSettings, PretrainedPolicy
from sgsd_lightning.toy.base_model import build_base_model
from sgsd_lightning.toy.problems import toy_problems
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE
from sgsd_lightning.toy.recipe import READS_SOLUTIONS, BaseModelSettings
from sgsd_lightning.types import Problem


class ToyProblems(ProblemSource):
    """Expressions of one split; the splits share none.

    Args:
        split: ``train``, ``validation`` or ``test``.
        num: how many.
        seed: which ones.
    """

    def __init__(self, split: str, num: int, seed: int = 0) -> None:
        self.split = split
        self.num = num
        self.seed = seed

    def load(self) -> list[Problem]:
        return toy_problems(self.split, self.num, self.seed)


class ToyPolicy(PretrainedPolicy):
    """The toy base model: part of the package for seeds 0, 1 and 2, else trained on first use (a minute) and cached.

    Args:
        seed: the base model's seed.
        attention: as for any policy.
        gradient_checkpointing: as for any policy.
        compile: as for any policy.
        lora: train adapters instead of all weights.
        reads_solutions: take a base model that was also trained on prompts that show the worked solution, as OPSD's
            teacher is given one; the other has never seen any and is confused by it.
    """

    def __init__(
        self,
        seed: int = 0,
        attention: str = "auto",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        lora: LoraSettings | None = None,
        reads_solutions: bool = False,
    ) -> None:
        super().__init__(
            "the toy base model",
            attention=attention,
            gradient_checkpointing=gradient_checkpointing,
            compile=compile,
            lora=lora,
        )
        self.seed = seed
        self.recipe = READS_SOLUTIONS if reads_solutions else BaseModelSettings()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        self.model_name_or_path = str(build_base_model(self.seed, settings=self.recipe))
        return super().load_tokenizer()

    def load_model(self) -> PreTrainedModel:
        self.model_name_or_path = str(build_base_model(self.seed, settings=self.recipe))
        return super().load_model()


TOY_BANK = "package://sgsd_lightning.toy/toy_bank.json"
SKILL_EVALUATION: dict[str, Any] = {
    "class_path": "sgsd_lightning.contexts.SkillPairs",
    "init_args": {"bank": TOY_BANK, "num_contexts": 1, "template": PAIR_TEMPLATE},
}
"""A context builder that shows the pair ranked first: Base+Skill."""
