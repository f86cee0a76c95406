"""What bank maintenance refuses in time, and what it guards; how it works on processes is in tests/distributed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sgsd_lightning.callbacks import BankMaintenance
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.data import ProblemDataModule, ProblemSource
from sgsd_lightning.skills import EvidenceLedger, SkillBank
from sgsd_lightning.toy import ConventionWriter
from sgsd_lightning.toy.world import TOY_BANK
from sgsd_lightning.types import Problem
from tests.support.tiny import NumberedContexts, tiny_module


class Asked(ProblemSource):
    def __init__(self, text: str) -> None:
        self.text = text

    def load(self) -> list[Problem]:
        return [Problem(problem_id=self.text, text=self.text, answer="1")]


def trainer() -> Any:
    data = ProblemDataModule(
        train=Asked("how many trees stand in the old garden by the river now"),
        validation=Asked("how many boats lie in the small harbour behind the hill today"),
        test=Asked("how many stars can be seen from the tower at night in winter"),
        batch_size=1,
    )
    data.setup("fit")
    return SimpleNamespace(datamodule=data)


def test_no_item_may_repeat_a_problem_of_validation_or_test() -> None:
    callback = BankMaintenance(ConventionWriter())
    callback.setup(trainer(), tiny_module(contexts=SkillPairs(TOY_BANK)), "fit")
    for told in ("boats lie in the small harbour behind the hill", "stars can be seen from the tower at night"):
        assert callback._guard.check([f"Remember how many {told}."]) is not None
    assert callback._guard.check(["Remember how many trees stand in the old garden by the river."]) is None


def test_contexts_without_a_bank_are_refused_unless_there_is_no_writer() -> None:
    with pytest.raises(ValueError, match=r"needs model.init_args.contexts of class SkillPairs.*got NumberedContexts"):
        BankMaintenance(ConventionWriter()).setup(trainer(), tiny_module(), "fit")
    BankMaintenance().setup(trainer(), tiny_module(), "fit")


class OwnBank(NumberedContexts):
    """Contexts with a bank that are no `SkillPairs`."""

    bank: SkillBank | None = None
    ledger = EvidenceLedger()

    def use(self, bank: SkillBank) -> None: ...


def test_contexts_of_ones_own_may_have_the_bank() -> None:
    BankMaintenance(ConventionWriter()).setup(trainer(), tiny_module(contexts=OwnBank()), "fit")


@pytest.mark.parametrize(
    ("name", "value"),
    [("every_n_steps", 0), ("success_threshold", 1.5), ("max_pooled", 0), ("time_limit_seconds", 0.0)],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"bank_maintenance.{name} must be .*; got {value}"):
        BankMaintenance(ConventionWriter(), **{name: value})
