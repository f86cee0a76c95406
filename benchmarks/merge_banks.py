"""What duplicates alone leave of published banks, by threshold; and how often a leak guard rejects without cause.

    python -m benchmarks.merge_banks --data ../shared/data

Counts and rates only: no text of the data goes into the result file. Nothing here asks a language model: what one would
leave is not measured (``counts_with`` takes a writer for when there is one).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from sgsd_lightning.skills.bank import Mistake, Skill, SkillBank
from sgsd_lightning.skills.growth.merge import MergeSettings
from sgsd_lightning.skills.growth.merge_bank import METADATA_KEY, merge_candidates
from sgsd_lightning.skills.growth.writer import SkillWriter
from sgsd_lightning.skills.leaks.answers import contains_answer, number_of
from sgsd_lightning.skills.leaks.evaluation_problems import EvaluationProblems
from sgsd_lightning.skills.similarity import LexicalSimilarity

DEFAULT_FILE = Path("benchmarks/results/merge_banks.json")
THRESHOLDS = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
BANKS = ("raw_skill_candidates_qwen3_4b", "skill_bank_qwen3_1b", "skill_bank_qwen3_4b", "skill_bank_qwen3_8b")
CANDIDATES = BANKS[0]
EVALUATIONS = ("aime24", "aime25", "aime26", "hmmt25", "math500")
ANSWERS = ("math_train_3k", "math500")
NGRAM_WORDS = (4, 5, 6, 8)
NUM_PAIRS = 20_000
NUM_MANY = 10_000


@dataclass(frozen=True, slots=True)
class Left:
    """How many items are left."""

    bank: str
    threshold: float
    num_skills_in: int
    num_skills: int
    num_mistakes_in: int
    num_mistakes: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def counts_with(name: str, bank: SkillBank, threshold: float, writer: SkillWriter | None = None) -> Left:
    """What is left of a bank's items after a merge; without a writer, after its duplicates are gone."""
    merged = merge_candidates(bank, writer, MergeSettings(compare_by=LexicalSimilarity(threshold)))
    skills, mistakes = (merged.metadata[METADATA_KEY][kind] for kind in ("general_skills", "common_mistakes"))
    return Left(name, threshold, skills["num_in"], skills["num_out"], mistakes["num_in"], mistakes["num_out"])


def needless_answer_rejects(items: Sequence[Skill | Mistake], answers: Sequence[str]) -> dict[str, Any]:
    """How often an item contains the answer of a problem that it does not come from, by kind of answer."""
    draw = random.Random(0)
    asked: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for _ in range(NUM_PAIRS):
        answer = draw.choice(answers)
        kind = kind_of(answer)
        asked[kind] += 1
        hits[kind] += contains_answer([draw.choice(items).text], answer)
    by_kind = {
        kind: {"num_pairs": asked[kind], "num_rejects": hits[kind], "rejected_frac": round(hits[kind] / asked[kind], 4)}
        for kind in sorted(asked)
    }
    return {"rejected_frac": round(hits.total() / NUM_PAIRS, 4), "by_kind": by_kind}


def kind_of(answer: str) -> str:
    """A rough sort of answer."""
    value = number_of(answer)
    if value is None:
        return "other than a number"
    if value.denominator != 1:
        return "fraction or decimal"
    return {1: "integer of 1 digit", 2: "integer of 2 digits"}.get(len(str(value)), "integer of 3 or more digits")


def overlaps(folder: Path, banks: dict[str, SkillBank]) -> dict[str, Any]:
    """How much of banks and of training problems an evaluation's problems share."""
    texts = [problem["problem"] for name in EVALUATIONS for problem in records(folder, name)]
    training = [problem["problem"] for problem in records(folder, "math_train_3k")]
    start = time.perf_counter()
    guards = {length: EvaluationProblems(texts, length) for length in NGRAM_WORDS}
    seconds = (time.perf_counter() - start) / len(guards)
    return {
        "num_evaluation_problems": len(guards[8]),
        "seconds_to_index": round(seconds, 3),
        "items_that_overlap_by_ngram_words": {
            name: {
                str(length): sum(guard.overlap(text) is not None for text in texts_of(bank))
                for length, guard in guards.items()
            }
            for name, bank in banks.items()
        },
        "num_training_problems": len(training),
        "num_training_problems_that_are_evaluation_problems": sum(guards[8].contains(text) for text in training),
        "num_training_problems_that_share_8_words": sum(guards[8].overlap(text) is not None for text in training),
    }


def seconds_for_many(bank: SkillBank) -> float:
    """Time to find the duplicates among ``NUM_MANY`` items whose words are drawn from a bank's."""
    draw = random.Random(0)
    words = [word for skill in bank.general_skills for word in skill.text.split()]
    items = [
        Skill(skill_id=f"s{n}", title=" ".join(draw.choices(words, k=40)), principle="", when_to_apply="")
        for n in range(NUM_MANY)
    ]
    start = time.perf_counter()
    merge_candidates(SkillBank(general_skills=tuple(items), common_mistakes=()), None)
    return time.perf_counter() - start


def texts_of(bank: SkillBank) -> list[str]:
    """The texts of all items."""
    items: list[Skill | Mistake] = [*bank.general_skills, *bank.common_mistakes]
    return [item.text for item in items]


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a JSON Lines file."""
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def table(found: Mapping[str, Any]) -> str:
    """What duplicates leave of each bank, one column a threshold."""
    kinds = ("skills", "mistakes")
    rows: dict[tuple[str, str], list[str]] = {}
    for left in found["left_by_threshold"]:
        for kind in kinds:
            row = rows.setdefault((left["bank"], kind), [str(left[f"num_{kind}_in"])])
            row.append(str(left[f"num_{kind}"]))
    thresholds = list(dict.fromkeys(str(left["threshold"]) for left in found["left_by_threshold"]))
    header = ("bank", "items", "before", *thresholds)
    return markdown_table(header, [(*key, *row) for key, row in rows.items()], range(2, len(header)))


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the banks and problems")
    parser.add_argument("--out", type=Path, default=DEFAULT_FILE)
    options = parser.parse_args(arguments)
    banks = {name: SkillBank.load(options.data / f"{name}.json") for name in BANKS}
    left = [counts_with(name, bank, threshold) for name, bank in banks.items() for threshold in THRESHOLDS]
    candidates = banks[CANDIDATES]
    kinds: dict[str, Sequence[Skill | Mistake]] = {
        "skills": candidates.general_skills,
        "mistakes": candidates.common_mistakes,
    }
    found = {
        **provenance("benchmarks.merge_banks", arguments, torch.device("cpu")),
        "versions": {name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy", "scipy")},
        "similarity": "LexicalSimilarity",
        "default_threshold": LexicalSimilarity().threshold,
        "writer": None,
        "left_by_threshold": [row.as_dict() for row in left],
        "seconds_for_10000_items": round(seconds_for_many(candidates), 2),
        "needless_answer_rejects": {
            f"candidate {kind}, answers of {name}": needless_answer_rejects(
                items, [problem["answer"] for problem in records(options.data, name)]
            )
            for name in ANSWERS
            for kind, items in kinds.items()
        },
        "evaluation_overlap": overlaps(options.data, banks),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    print(json.dumps({key: found[key] for key in ("needless_answer_rejects", "evaluation_overlap")}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
