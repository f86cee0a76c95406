"""Duplicates: stars rather than chains, static items first, the same again, and ten thousand items in little memory."""

from __future__ import annotations

import importlib
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgsd_lightning.skills.bank import Skill
from sgsd_lightning.skills.growth.duplicates import find_clusters, without_duplicates
from sgsd_lightning.skills.growth.groups import group_similar
from sgsd_lightning.skills.item_ids import ItemIds
from sgsd_lightning.skills.provenance import list_sources, unite_sources, with_sources
from sgsd_lightning.skills.similarity import EmbeddingSimilarity, LexicalSimilarity, TextSimilarity
from tests.skills.bank_items import skill

WORDS = ("prime", "divisor", "triangle", "angle", "coin", "parabola")
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)


class Angles(TextSimilarity):
    """Texts are angles in degrees, similar by the cosine between them."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        radians = np.deg2rad([float(text.split(".")[0]) for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def by_hand(first: str, second: str) -> float:
    """Cosine of the damped word counts of two texts."""
    counts = [{word: 1 + np.log(text.split().count(word)) for word in text.split()} for text in (first, second)]
    product = sum(weight * counts[1].get(word, 0) for word, weight in counts[0].items())
    return float(product / np.prod([np.sqrt(sum(w * w for w in count.values())) for count in counts]))


def ids_of(items: Sequence[Skill]) -> list[str]:
    return [item.item_id for item in items]


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, min_size=2, max_size=8), st.floats(0.2, 1.0))
def test_lexical_neighbours_are_those_by_hand(texts: list[str], threshold: float) -> None:
    found = LexicalSimilarity(threshold).neighbours(texts)
    for row, text in enumerate(texts):
        for column, other in enumerate(texts):
            likeness = by_hand(text, other)
            if row == column or abs(likeness - threshold) < 1e-5:
                continue
            assert (column in found[row]) == (likeness > threshold)
            if column in found[row]:
                assert found[row][column] == pytest.approx(likeness, abs=1e-5)


def test_a_similarity_does_not_depend_on_the_other_texts() -> None:
    texts = ["factor the prime divisor", "list the prime divisor pairs"]
    alone = LexicalSimilarity(0.1).neighbours(texts)[0][1]
    among = LexicalSimilarity(0.1).neighbours([*texts, *("prime coin " * n for n in range(1, 40))])[0][1]
    assert among == pytest.approx(alone, abs=1e-6)


def test_small_steps_do_not_chain_unlike_items_together() -> None:
    items = [skill(f"gen_{angle:03d}", str(angle)) for angle in (0, 20, 40, 60, 80)]
    threshold = float(np.cos(np.deg2rad(25)))
    clusters = find_clusters(items, Angles(threshold))
    together = [[c.representative.item_id, *ids_of(c.duplicates)] for c in clusters]
    assert together == [["gen_020", "gen_000", "gen_040"], ["gen_060", "gen_080"]]


def test_a_member_goes_to_the_most_similar_representative() -> None:
    items = [skill(f"gen_{angle:03d}", str(angle)) for angle in (0, 2, 20, 30, 31)]
    clusters = find_clusters(items, Angles(float(np.cos(np.deg2rad(19)))))
    together = {c.representative.item_id: ids_of(c.duplicates) for c in clusters}
    assert together == {"gen_000": ["gen_002"], "gen_020": ["gen_030", "gen_031"]}


def test_exact_copies_go_whatever_their_spaces_and_case_and_static_items_stay() -> None:
    items = [skill("dyn_001", "Prime  divisor"), skill("gen_001", "prime DIVISOR"), skill("dyn_002", "coin")]
    left = without_duplicates(items, LexicalSimilarity(1.0))
    assert ids_of(left) == ["gen_001", "dyn_002"]
    assert left[0].title == "prime DIVISOR"
    assert list_sources(left[0]) == ("gen_001", "dyn_001")
    assert left[1] is items[2]


def test_a_static_item_represents_even_where_a_dynamic_one_has_more_neighbours() -> None:
    items = [skill("dyn_001", "20"), skill("dyn_002", "38"), skill("gen_001", "2"), skill("dyn_003", "21")]
    left = without_duplicates(items, Angles(float(np.cos(np.deg2rad(19)))))
    assert "gen_001" in ids_of(left)
    assert "dyn_001" not in ids_of(left)


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, max_size=12), st.floats(0.3, 1.0), st.lists(st.booleans(), min_size=12, max_size=12))
def test_nothing_loses_its_sources_and_a_second_time_changes_nothing(
    texts: list[str], threshold: float, dynamic: list[bool]
) -> None:
    items = [skill(f"{'dyn' if dynamic[n] else 'gen'}_{n:03d}", text) for n, text in enumerate(texts)]
    similarity = LexicalSimilarity(threshold)
    left = without_duplicates(items, similarity)
    assert set(unite_sources(left)) == set(ids_of(items))
    assert without_duplicates(left, similarity) == left
    assert ids_of(left) == [item_id for item_id in ids_of(items) if item_id in set(ids_of(left))]
    by_id = {item.item_id: item.title for item in items}
    for item in left if len(left) == len(find_clusters(items, similarity)) else ():
        for source in list_sources(item):
            assert by_hand(item.title, by_id[source]) >= threshold - 1e-5


def test_texts_without_a_word_are_duplicates_only_of_themselves() -> None:
    items = [skill("gen_001", "∫"), skill("gen_002", "∑"), skill("gen_003", "∫")]
    assert ids_of(without_duplicates(items, LexicalSimilarity())) == ["gen_001", "gen_002"]
    assert without_duplicates([], LexicalSimilarity()) == []


def test_many_items_need_no_square_matrix() -> None:
    num_items = 4_000
    words = np.array([f"word{n}" for n in range(3000)])
    texts = [" ".join(row) for row in words[np.random.default_rng(0).integers(0, 3000, (num_items, 8))]]
    items = [skill(f"gen_{n:05d}", text) for n, text in enumerate([*texts[:-10], *texts[:10]])]
    tracemalloc.start()
    clusters = find_clusters(items, LexicalSimilarity())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(cluster.duplicates) for cluster in clusters] == [1] * 10 + [0] * (num_items - 20)
    assert peak < 4 * num_items**2  # bytes: less than even a square of float32


class CountingEncoder:
    """Embeds a text as its letter counts, and remembers how many texts it was given."""

    num_texts = 0

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        self.num_texts += len(texts)
        counts = np.array([[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_embeddings_are_asked_for_once_and_compared_by_cosine() -> None:
    similarity, encoder = EmbeddingSimilarity("a-model", threshold=0.99), CountingEncoder()
    similarity._encoder = encoder
    items = [skill("gen_001", "listen"), skill("gen_002", "silent"), skill("gen_003", "parabola")]
    assert ids_of(without_duplicates(items, similarity)) == ["gen_001", "gen_003"]
    assert encoder.num_texts == 3


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_sentence_transformers_model_from_a_folder_is_compared_by_its_cosines(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the extra `retrieval`")
    modules = importlib.import_module("sentence_transformers.models")
    words = modules.WordEmbeddings
    tokenizer = importlib.import_module("sentence_transformers.models.tokenizer").WhitespaceTokenizer(list(WORDS))
    weights = np.random.default_rng(0).normal(size=(len(WORDS), 8)).astype(np.float32)
    layers = [words(tokenizer, weights), modules.Pooling(8)]
    sentence_transformers.SentenceTransformer(modules=layers, device="cpu").save(str(tmp_path / "encoder"))
    found = EmbeddingSimilarity(str(tmp_path / "encoder"), threshold=0.05, device="cpu").neighbours(list(WORDS))
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    expected = unit @ unit.T
    for row in range(len(WORDS)):
        near = {column: expected[row, column] for column in range(len(WORDS)) if column != row}
        assert found[row] == pytest.approx({c: likeness for c, likeness in near.items() if likeness >= 0.05}, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"similarity.threshold must be over 0 and at most 1; got"):
        LexicalSimilarity(threshold)


@settings(deadline=None, max_examples=40)
@given(st.lists(TEXTS, max_size=30), st.integers(2, 7), st.integers(0, 5))
def test_groups_hold_every_item_once_and_differ_in_size_by_one(texts: list[str], size: int, turn: int) -> None:
    items = [skill(f"gen_{n}", text) for n, text in enumerate(texts)]
    groups = group_similar(items, size, LexicalSimilarity(), turn)
    assert sorted(ids_of([item for group in groups for item in group])) == sorted(ids_of(items))
    sizes = [len(group) for group in groups]
    assert len(groups) == -(-len(items) // size)
    assert max(sizes, default=0) <= size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_similar_items_stand_in_one_group() -> None:
    items = [skill(f"gen_{n}", f"{WORDS[n % 3]} {WORDS[n % 3 + 3]} case{n}") for n in range(12)]
    groups = group_similar(items, 4, LexicalSimilarity())
    assert sorted(sorted({int(item.item_id[4:]) % 3 for item in group}) for group in groups) == [[0], [1], [2]]


def test_ids_are_never_given_twice() -> None:
    ids = ItemIds("dyn_", ["dyn_002", "gen_900", "dyn_x", "dyn_007"], last_number=4)
    assert [ids.next(), ids.next(), ids.last_number] == ["dyn_008", "dyn_009", 9]
    assert ItemIds("dyn_", ["dyn_002"], last_number=41).next() == "dyn_042"
    assert ItemIds("gen_").next() == "gen_001"
    with pytest.raises(ValueError, match="last_number must be 0 or more; got -1"):
        ItemIds("gen_", last_number=-1)


def test_sources_are_the_own_id_until_there_are_others() -> None:
    plain, merged = skill("gen_001", "a"), skill("gen_002", "b", {"sources": ["m2", "m1", "m2"], "note": 1})
    assert list_sources(plain) == ("gen_001",)
    assert list_sources(merged) == ("m2", "m1")
    assert list_sources(skill("gen_003", "c", {"sources": "m1"})) == ("gen_003",)
    assert unite_sources([merged, plain, merged]) == ("m2", "m1", "gen_001")
    assert with_sources(plain, ["gen_001"]) is plain
    assert with_sources(merged, ["m1"]).extra == {"sources": ["m1"], "note": 1}
