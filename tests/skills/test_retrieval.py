"""Retrieval: the same for a problem whatever its neighbours, against an independent ranking."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import Qwen3Config, Qwen3Model

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.skills import (
    EmbeddingRetriever,
    LexicalRetriever,
    RandomRetriever,
    Retriever,
    SkillBank,
    check_num_contexts,
    pair_by_rank,
)
from sgsd_lightning.types import Problem

REPOSITORY = Path(__file__).resolve().parents[2]
TOPICS = ("prime numbers divide", "triangle angles sum", "coins heads probability", "parabola vertex roots")


def make_bank(num_skills: int = 4, num_mistakes: int = 3) -> SkillBank:
    return SkillBank.from_json(
        json.dumps(
            {
                "general_skills": [
                    {
                        "skill_id": f"gen_{i}",
                        "title": TOPICS[i % 4],
                        "principle": f"rule {i}",
                        "when_to_apply": "often",
                    }
                    for i in range(num_skills)
                ],
                "common_mistakes": [
                    {
                        "mistake_id": f"err_{i}",
                        "description": TOPICS[i % 4],
                        "why_it_happens": "haste",
                        "how_to_avoid": "care",
                    }
                    for i in range(num_mistakes)
                ],
            }
        )
    )


PROBLEMS = [
    Problem(problem_id="a", text="Which prime numbers divide 30?", answer="2,3,5"),
    Problem(problem_id="b", text="Find the vertex of the parabola y = x^2.", answer="(0,0)"),
    Problem(problem_id="c", text="zzz", answer="1"),
]


class CountingEncoder:
    """Embeds a text as its letter counts, and remembers how many texts it was given."""

    def __init__(self) -> None:
        self.num_texts = 0

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        self.num_texts += len(texts)
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def embedding_retriever() -> tuple[EmbeddingRetriever, CountingEncoder]:
    retriever, encoder = EmbeddingRetriever("a-model"), CountingEncoder()
    retriever._encoder = encoder
    return retriever, encoder


@pytest.mark.parametrize("make", [LexicalRetriever, RandomRetriever, lambda: embedding_retriever()[0]])
def test_a_ranking_does_not_depend_on_the_batch(make: type[Retriever]) -> None:
    retriever = make()
    retriever.index(make_bank())
    together = retriever.rank(PROBLEMS, 2)
    alone = [retriever.rank([problem], 2)[0] for problem in PROBLEMS]
    assert [[r.indices for r in pair] for pair in together] == [[r.indices for r in pair] for pair in alone]
    for pair, other in zip(together, alone, strict=True):
        for ranking, same in zip(pair, other, strict=True):
            assert ranking.scores == pytest.approx(same.scores, abs=1e-6)
    assert all(len(skills.indices) == len(mistakes.indices) == 2 for skills, mistakes in together)


def test_words_that_agree_rank_first_and_ties_keep_the_banks_order() -> None:
    retriever = LexicalRetriever()
    retriever.index(make_bank())
    (prime, _), (parabola, _), (nothing, _) = retriever.rank(PROBLEMS, 4)
    assert prime.indices[0] == 0
    assert parabola.indices[0] == 3
    assert nothing.indices == (0, 1, 2, 3)
    assert nothing.scores == (0, 0, 0, 0)


def test_lexical_similarity_is_the_cosine_of_tf_idf_by_hand() -> None:
    bank = make_bank(2, 1)
    texts = [skill.text for skill in bank.general_skills] + [mistake.text for mistake in bank.common_mistakes]

    def terms(text: str) -> Counter[str]:
        return Counter("".join(c if c.isalnum() else f" {c} " for c in text.lower()).split())

    num_texts_with = Counter(term for text in texts for term in terms(text))
    weight = {term: math.log((1 + len(texts)) / (1 + count)) + 1 for term, count in num_texts_with.items()}

    def vector(text: str) -> dict[str, float]:
        raw = {term: (1 + math.log(count)) * weight[term] for term, count in terms(text).items() if term in weight}
        norm = math.sqrt(sum(value * value for value in raw.values())) or 1.0
        return {term: value / norm for term, value in raw.items()}

    query = vector(PROBLEMS[0].text)
    expected = [sum(query[term] * vector(text).get(term, 0.0) for term in query) for text in texts[:2]]
    retriever = LexicalRetriever()
    retriever.index(bank)
    ranking = retriever.rank(PROBLEMS[:1], 2)[0][0]
    assert dict(zip(ranking.indices, ranking.scores, strict=True)) == pytest.approx(dict(enumerate(expected)), abs=1e-6)


def test_only_what_is_new_in_a_bank_is_embedded_and_a_problem_once() -> None:
    retriever, encoder = embedding_retriever()
    retriever.index(make_bank())
    assert encoder.num_texts == 7
    retriever.index(make_bank())
    retriever.rank(PROBLEMS, 2)
    retriever.rank(PROBLEMS, 2)
    assert encoder.num_texts == 7 + 3
    before = retriever.rank(PROBLEMS, 2)
    retriever.index(make_bank(num_mistakes=2))
    assert encoder.num_texts == 7 + 3
    retriever.index(make_bank())
    assert encoder.num_texts == 7 + 3 + 1
    assert retriever.rank(PROBLEMS, 2) == before


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_sentence_transformers_model_from_a_folder_ranks_by_cosine(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the extra `retrieval`")
    modules = importlib.import_module("sentence_transformers.models")
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
    )
    Qwen3Model(config).save_pretrained(tmp_path / "model")
    transformer = modules.Transformer(str(tmp_path / "model"))
    pooling = modules.Pooling(32, pooling_mode="lasttoken")
    encoder = sentence_transformers.SentenceTransformer(modules=[transformer, pooling], device="cpu")
    encoder.save(str(tmp_path / "encoder"))
    bank = make_bank()
    retriever = EmbeddingRetriever(str(tmp_path / "encoder"), device="cpu")
    retriever.index(bank)
    ranking = retriever.rank(PROBLEMS[:1], 4)[0][0]
    query, *items = encoder.encode([PROBLEMS[0].text, *(skill.text for skill in bank.general_skills)])
    cosines = [float(query @ item / np.linalg.norm(query) / np.linalg.norm(item)) for item in items]
    assert dict(zip(ranking.indices, ranking.scores, strict=True)) == pytest.approx(dict(enumerate(cosines)), abs=1e-5)


def test_without_sentence_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'sgsd-lightning\[retrieval\]'"):
        EmbeddingRetriever().index(make_bank())


def test_random_orders_derive_from_seed_and_problem_in_any_process() -> None:
    retriever = RandomRetriever(seed=3)
    retriever.index(make_bank(30, 20))
    here = [list(ranking.indices) for ranking in retriever.rank(PROBLEMS[:1], 10)[0]]
    other = RandomRetriever(seed=4)
    other.index(make_bank(30, 20))
    assert [list(ranking.indices) for ranking in other.rank(PROBLEMS[:1], 10)[0]] != here
    program = (
        "from tests.skills.test_retrieval import *\n"
        "r = RandomRetriever(seed=3); r.index(make_bank(30, 20))\n"
        "print(json.dumps([list(x.indices) for x in r.rank(PROBLEMS[:1], 10)[0]]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "99", "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY}/kernels"}
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(printed.stdout) == here


def test_pairs_go_by_rank_and_their_softmax_weights_are_as_by_hand() -> None:
    bank = make_bank()
    retriever = LexicalRetriever()
    retriever.index(bank)
    skills, mistakes = retriever.rank(PROBLEMS[:1], 3)[0]
    pairs = pair_by_rank(bank, skills, mistakes, "softmax")
    assert [pair.skill.skill_id for pair in pairs] == [f"gen_{index}" for index in skills.indices]
    assert [pair.mistake.mistake_id for pair in pairs] == [f"err_{index}" for index in mistakes.indices]
    scores = [(a + b) / 2 for a, b in zip(skills.scores, mistakes.scores, strict=True)]
    assert [pair.score for pair in pairs] == pytest.approx(scores)
    total = sum(math.exp(score) for score in scores)
    assert [pair.weight for pair in pairs] == pytest.approx([math.exp(score) / total for score in scores])
    assert [pair.weight for pair in pair_by_rank(bank, skills, mistakes, "uniform")] == [1 / 3] * 3


@pytest.mark.parametrize(
    ("bank", "num_contexts", "message"),
    [
        (make_bank(4, 3), 4, "num_contexts = 4, but b.json has 4 skills and 3 mistakes, which make 3 pairs"),
        (make_bank(4, 0), 1, "b.json has 4 skills and 0 mistakes, which make 0 pairs"),
        (make_bank(), 0, "contexts.num_contexts must be at least 1; got 0"),
    ],
)
def test_more_contexts_than_pairs_are_refused(bank: SkillBank, num_contexts: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_num_contexts(bank, num_contexts, "b.json")
