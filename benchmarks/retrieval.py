"""How long a bank of 10,000 items takes to index and to search for a batch of 64 problems.

    python -m benchmarks.retrieval --out benchmarks/results/retrieval_cpu.json

Items and problems are made of words drawn at random with Zipf's frequencies. The embedding retriever is given random
unit vectors in the place of an encoder's: what is timed is what it does with them, not the encoder. Beside them, in the
same run, one forward pass of a small random model (64 sequences of 256 tokens), far smaller than what anybody trains. A
search includes evidence for every item and the pairing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.timing import MIN_REPEATS
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.policy import RandomPolicy
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import TokenSequence, pack
from sgsd_lightning.skills import (
    EmbeddingRetriever,
    EvidenceSettings,
    LexicalRetriever,
    Mistake,
    Retriever,
    Skill,
    SkillBank,
)
from sgsd_lightning.types import Observation, Problem

NUM_ITEMS, NUM_PROBLEMS, NUM_CONTEXTS = 10_000, 64, 8
WIDTH = 1024
SEQUENCE_TOKENS = 256
HEADER = ("what", "ms (median)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both retrievers and a forward pass."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=max(5, MIN_REPEATS))
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    milliseconds = measure(options.repeats)
    content = {**provenance("benchmarks.retrieval", given, torch.device("cpu")), "milliseconds": milliseconds}
    if options.out:
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(table(content))


def measure(repeats: int) -> dict[str, float]:
    """Median milliseconds by name."""
    words = random.Random(0)
    bank = random_bank(words, NUM_ITEMS // 2)
    changed = random_bank(words, 5, first=NUM_ITEMS)
    grown = SkillBank(
        general_skills=bank.general_skills + changed.general_skills,
        common_mistakes=bank.common_mistakes + changed.common_mistakes,
    )
    problems = [Problem(problem_id=str(n), text=text(words, 60), answer="1") for n in range(NUM_PROBLEMS)]
    found = {}
    for name, retriever in retrievers().items():
        contexts = contexts_with(retriever)
        found[f"{name}: index {NUM_ITEMS} items"] = clock(lambda c=contexts: c.use(bank))  # type: ignore[misc]
        found[f"{name}: index again, 10 items new"] = clock(lambda c=contexts: c.use(grown))  # type: ignore[misc]
        observe_all(contexts, grown)
        found[f"{name}: search for {NUM_PROBLEMS} problems"] = median(lambda c=contexts: search(c, problems), repeats)  # type: ignore[misc]
    found["one forward pass, small model"] = median(forward_pass(), repeats)
    return {key: round(value, 1) for key, value in found.items()}


def retrievers() -> dict[str, Retriever]:
    """Both kinds; the encoder's vectors are random."""
    embedding = EmbeddingRetriever()
    embedding._encoder = RandomEncoder()
    return {"lexical": LexicalRetriever(), "embedding": embedding}


class RandomEncoder:
    """A unit vector a text, at no cost."""

    def encode(self, texts: Sequence[str], **options: Any) -> NDArray[np.float32]:
        vectors = np.random.default_rng(0).standard_normal((len(texts), WIDTH), dtype=np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def contexts_with(retriever: Retriever) -> SkillPairs:
    """Evidence takes part."""
    return SkillPairs("random", retriever, NUM_CONTEXTS, evidence=EvidenceSettings(weight=1.0))


def observe_all(contexts: SkillPairs, bank: SkillBank) -> None:
    """Every item has been used."""
    contexts.observe(
        1,
        [
            Observation(source_ids=(item.item_id,), outcome=1, polarity=1, stance_score=0.1, gated_loss=0.1)
            for item in bank.items
        ],
    )


def search(contexts: SkillPairs, problems: Sequence[Problem]) -> None:
    """As in a step: evidence has changed since the last one."""
    contexts.observe(2, [])
    contexts.pairs(problems)


def forward_pass() -> Callable[[], Any]:
    """Of the student, without gradient."""
    policy = RandomPolicy(hidden_size=512, num_layers=8, num_heads=8, intermediate_size=1536)
    model = policy.load_model()
    ids = tuple(range(64, 64 + SEQUENCE_TOKENS // 2))
    row = pack([TokenSequence.causal(ids, ids)] * NUM_PROBLEMS, "packed")
    bind_score(model)

    def run() -> None:
        with torch.no_grad():
            model.score(row)

    return run


def random_bank(words: random.Random, num: int, first: int = 0) -> SkillBank:
    """``num`` skills and as many mistakes."""
    return SkillBank(
        general_skills=tuple(
            Skill(
                skill_id=f"gen_{first + n}",
                title=text(words, 5),
                principle=text(words, 25),
                when_to_apply=text(words, 15),
            )
            for n in range(num)
        ),
        common_mistakes=tuple(
            Mistake(
                mistake_id=f"err_{first + n}",
                description=text(words, 15),
                why_it_happens=text(words, 15),
                how_to_avoid=text(words, 15),
            )
            for n in range(num)
        ),
    )


def text(words: random.Random, num: int) -> str:
    """Words of a vocabulary of about 20,000."""
    return " ".join(f"w{int(20_000 ** words.random())}" for _ in range(num))


def clock(action: Callable[[], Any]) -> float:
    """Milliseconds of the process."""
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start)


def median(action: Callable[[], Any], repeats: int) -> float:
    """After one run that does not count."""
    action()
    return sorted(clock(action) for _ in range(repeats))[repeats // 2]


def table(content: dict[str, Any]) -> str:
    """One row a measurement."""
    return markdown_table(
        HEADER, [(name, f"{value:,.1f}") for name, value in content["milliseconds"].items()], right=(1,)
    )


if __name__ == "__main__":
    main()
