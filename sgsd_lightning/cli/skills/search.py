"""`sgsd skills search`: the pairs that a problem would get, found as training finds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sgsd_lightning.checkpoints.evidence import load_evidence
from sgsd_lightning.cli.output import cell
from sgsd_lightning.cli.skills.arguments import call_with_arguments
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.skills import EvidenceSettings, Retriever, SkillBank, Weighting
from sgsd_lightning.types import Problem


def main(arguments: Sequence[str]) -> None:
    """``BANK "problem text"`` may stand first, without their flags."""
    given = list(arguments)
    leading = next((place for place, argument in enumerate(given) if argument.startswith("-")), len(given))
    named = [f"--{name}={value}" for name, value in zip(("bank", "problem"), given[:leading], strict=False)]
    call_with_arguments(search, 'sgsd skills search BANK "problem text"', [*named, *given[min(leading, 2) :]])


def search(
    bank: str,
    problem: str,
    num: int = 8,
    retriever: Retriever | None = None,
    weighting: Weighting = "softmax",
    evidence: EvidenceSettings | None = None,
) -> None:
    """Print the pairs that a problem would get, with their scores and weights.

    Args:
        bank: a bank's file, or the folder or checkpoint of a run, whose evidence then counts.
        problem: the problem's text.
        num: pairs.
        retriever: what ranks; by default the words.
        weighting: as in training.
        evidence: as in training.
    """
    contexts = SkillPairs(bank, retriever, num, weighting, evidence=evidence)
    path = Path(bank)
    if path.is_dir() or path.suffix == ".ckpt":
        found, ledger = load_evidence(path)
        contexts.ledger.load_json(ledger.to_json())
    else:
        found = SkillBank.load(bank)
    contexts.num_contexts = min(num, len(found.general_skills), len(found.common_mistakes))
    contexts.use(found)
    (pairs,) = contexts.pairs([Problem(problem_id="searched", text=problem, answer="")])
    table = Table(title=cell(f"pairs for: {problem[:60]}"))
    for column in ("weight", "score", "skill", "mistake"):
        table.add_column(column, justify="right" if column in ("weight", "score") else "left")
    for pair in pairs:
        table.add_row(
            f"{pair.weight:.3f}",
            f"{pair.score:.3f}",
            cell(f"{pair.skill.skill_id}: {pair.skill.title}"),
            cell(f"{pair.mistake.mistake_id}: {pair.mistake.description}"),
        )
    Console().print(table)
