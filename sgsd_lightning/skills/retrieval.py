"""Retrieval: ranks a bank's items for a problem, by meaning, by words, or at random."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.types import Problem
from sgsd_lightning.types.arguments import require_at_least

Similarity = NDArray[np.float32]
"""[problems, items], larger is closer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """The items of one kind that fit one problem best, best first; ties are in the bank's order."""

    indices: tuple[int, ...]
    """Indices into the bank's list."""
    scores: tuple[float, ...]
    """Similarities, as the retriever measures them."""


class Retriever(ABC):
    """Ranks a bank's skills and its mistakes, separately, for each problem."""

    def __init__(self) -> None:
        self._indexed: str | None = None

    def index(self, bank: SkillBank) -> None:
        """Index a bank; does nothing if the same content is indexed already."""
        content_hash = bank.content_hash
        if content_hash != self._indexed:
            self._index([skill.text for skill in bank.general_skills], [m.text for m in bank.common_mistakes])
            self._indexed = content_hash

    def rank(self, problems: Sequence[Problem], num: int) -> list[tuple[Ranking, Ranking]]:
        """Return per problem the best ``num`` skills and the best ``num`` mistakes, or all if the bank has fewer.

        The result for a problem does not depend on the other problems.
        """
        skills, mistakes = self.similarity(problems)
        return [(best(skills[row], num), best(mistakes[row], num)) for row in range(len(problems))]

    def similarity(self, problems: Sequence[Problem]) -> tuple[Similarity, Similarity]:
        """Return [problems, skills] and [problems, mistakes] similarities with the indexed bank."""
        if self._indexed is None:
            raise RuntimeError("a retriever was asked before index was called")
        return self._similarity(problems)

    @abstractmethod
    def _index(self, skill_texts: Sequence[str], mistake_texts: Sequence[str]) -> None:
        """Index these texts."""

    @abstractmethod
    def _similarity(self, problems: Sequence[Problem]) -> tuple[Similarity, Similarity]:
        """Return [problems, skills] and [problems, mistakes]."""


def best(scores: Similarity, num: int) -> Ranking:
    """Rank the ``num`` largest of ``scores`` [items]; ties in order, -inf left out."""
    order = np.argsort(-scores, kind="stable")[:num]
    order = order[scores[order] > -np.inf]
    return Ranking(indices=tuple(order.tolist()), scores=tuple(scores[order].tolist()))


class LexicalRetriever(Retriever):
    """Cosine similarity of TF-IDF vectors (scikit-learn) over words: no download, no GPU, the same on any machine."""

    def _index(self, skill_texts: Sequence[str], mistake_texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # words of one letter count too: in mathematics x and n say something
        self._vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]", sublinear_tf=True)
        self._vectorizer.fit([*skill_texts, *mistake_texts])
        self._skills = self._transform(skill_texts)
        self._mistakes = self._transform(mistake_texts)

    def _similarity(self, problems: Sequence[Problem]) -> tuple[Similarity, Similarity]:
        queries = self._transform([problem.text for problem in problems])
        return _dense(queries @ self._skills.T), _dense(queries @ self._mistakes.T)

    def _transform(self, texts: Sequence[str]) -> Any:
        """Return sparse unit vectors, one row per text; no rows for no texts."""
        return self._vectorizer.transform(texts) if len(texts) else self._vectorizer.transform(["x"])[:0]


def _dense(similarity: Any) -> Similarity:
    return np.asarray(similarity.toarray(), dtype=np.float32)


class EmbeddingRetriever(Retriever):
    """Cosine similarity of sentence embeddings; needs the extra ``retrieval``.

    Every text is embedded once; when the bank changes, only its new texts are.

    Args:
        model_name: a sentence-transformers model by name or local path; the paper's is Qwen/Qwen3-Embedding-0.6B.
        device: where it runs; None lets sentence-transformers choose.
        batch_size: texts in one forward pass.
        query_prompt_name: the name of the model's own prompt for queries; None embeds problems as they are.
    """

    def __init__(
        self,
        model_name: str = "Qwen/Qwen3-Embedding-0.6B",
        device: str | None = None,
        batch_size: int = 32,
        query_prompt_name: str | None = None,
    ) -> None:
        super().__init__()
        self.model_name = model_name
        self.device = device
        require_at_least(1, "retriever.batch_size", batch_size)
        self.batch_size = batch_size
        self.query_prompt_name = query_prompt_name
        self._encoder: Any = None
        self._items: dict[str, NDArray[np.float32]] = {}
        self._queries: dict[str, NDArray[np.float32]] = {}

    def _index(self, skill_texts: Sequence[str], mistake_texts: Sequence[str]) -> None:
        texts = dict.fromkeys([*skill_texts, *mistake_texts])
        new = [text for text in texts if text not in self._items]
        embedded = {**self._items, **dict(zip(new, self._encode(new), strict=True))}
        self._items = {text: embedded[text] for text in texts}
        self._skills = _stack([embedded[text] for text in skill_texts])
        self._mistakes = _stack([embedded[text] for text in mistake_texts])

    def _similarity(self, problems: Sequence[Problem]) -> tuple[Similarity, Similarity]:
        new = list({problem.text: None for problem in problems if problem.text not in self._queries})
        self._queries.update(zip(new, self._encode(new, prompt_name=self.query_prompt_name), strict=True))
        queries = np.stack([self._queries[problem.text] for problem in problems])
        return queries @ self._skills.T, queries @ self._mistakes.T

    def _encode(self, texts: Sequence[str], prompt_name: str | None = None) -> NDArray[np.float32]:
        """[texts, width] unit vectors; [0, 1] for no texts."""
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        if self._encoder is None:
            self._encoder = load_encoder(self.model_name, self.device)
        vectors = self._encoder.encode(
            list(texts), batch_size=self.batch_size, prompt_name=prompt_name, normalize_embeddings=True
        )
        return np.asarray(vectors, dtype=np.float32)


def _stack(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[texts, width]; [0, 1] for no texts."""
    return np.stack(vectors) if vectors else np.zeros((0, 1), dtype=np.float32)


def load_encoder(model_name: str, device: str | None) -> Any:
    """Load a sentence-transformers model.

    Raises:
        ImportError: naming the extra, if sentence-transformers is not installed.
        ValueError: if there is no such model here or on the hub.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ImportError(
            "EmbeddingRetriever needs the package sentence-transformers: pip install 'sgsd-lightning[retrieval]'"
        ) from None
    try:
        return SentenceTransformer(model_name, device=device)
    except OSError as error:
        raise ValueError(
            f"retriever.model_name {model_name!r} is no local folder and was not found on the hub: "
            f"{str(error).splitlines()[0]}"
        ) from error


class RandomRetriever(Retriever):
    """A random order per problem: the baseline that shows what similarity is worth.

    Args:
        seed: the order derives from it and the problem's id.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def _index(self, skill_texts: Sequence[str], mistake_texts: Sequence[str]) -> None:
        self._sizes = (len(skill_texts), len(mistake_texts))

    def _similarity(self, problems: Sequence[Problem]) -> tuple[Similarity, Similarity]:
        rows = [self._draw(problem) for problem in problems]
        num_skills = self._sizes[0]
        drawn = np.stack(rows) if rows else np.zeros((0, sum(self._sizes)), dtype=np.float32)
        return drawn[:, :num_skills], drawn[:, num_skills:]

    def _draw(self, problem: Problem) -> Similarity:
        digest = hashlib.blake2b(f"{self.seed}:{problem.problem_id}".encode(), digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(digest, "big")).random(sum(self._sizes), dtype=np.float32)
