"""Similarity of two items' texts from 0 to 1, by words or by sentence embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgsd_lightning.skills.retrieval import load_encoder
from sgsd_lightning.types.arguments import require, require_at_least

ROWS_PER_BLOCK = 512
"""Texts per block of the similarity matrix: 20 MB of float32 for 10,000 texts."""


class TextSimilarity(ABC):
    """Cosine similarity of two texts' vectors, and the threshold from which they count as duplicates.

    The similarity of two texts must not depend on other texts: then the threshold means the same for eight candidates
    as for a bank of hundreds, and merging twice gives the same result.

    Args:
        threshold: two texts are duplicates at this similarity or above; in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        require(0 < threshold <= 1, "similarity.threshold", "be over 0 and at most 1", threshold)
        self.threshold = threshold

    @abstractmethod
    def vectors(self, texts: Sequence[str]) -> Any:
        """Return [texts, width] rows of norm 1 (0 for texts without a feature), dense or scipy sparse."""

    def neighbours(self, texts: Sequence[str]) -> list[dict[int, float]]:
        """Return per text the indices of its duplicates with their similarities; symmetric."""
        found: list[dict[int, float]] = [{} for _ in texts]
        vectors: Any = self.vectors(texts) if len(texts) else None
        for first in range(0, len(texts), ROWS_PER_BLOCK):
            block = cosines(vectors[first : first + ROWS_PER_BLOCK], vectors[first:])
            for row, column in zip(*(places.tolist() for places in np.nonzero(block >= self.threshold)), strict=True):
                if row < column:
                    found[first + row][first + column] = found[first + column][first + row] = float(block[row, column])
        return found


def cosines(rows: Any, columns: Any) -> NDArray[np.float32]:
    """Multiply two sets of `TextSimilarity.vectors`: [rows, columns], dense float32."""
    product = rows @ columns.T
    return np.asarray(product if isinstance(product, np.ndarray) else product.toarray(), dtype=np.float32)


class LexicalSimilarity(TextSimilarity):
    """Cosine of damped word counts (scikit-learn) without English stop words: no download, no GPU.

    Unlike retrieval it uses no inverse document frequencies, which make a similarity depend on the other texts:
    between all 505 published candidates and random eight of them similarities would shift by up to 0.13. Character
    n-grams see past inflection, but rate two formulas, or two notions of geometry, too high; on the published
    candidates words agree better with a reader.

    Args:
        threshold: as for `TextSimilarity`. In the published banks a reader agrees with all 10 pairs at 0.65 or above,
            with 12 of 17 from 0.60 to 0.65, and with 14 of 19 from 0.55 to 0.60 (benchmarks/merge_banks.py).
    """

    def __init__(self, threshold: float = 0.65) -> None:
        super().__init__(threshold)

    def vectors(self, texts: Sequence[str]) -> Any:
        """Return [texts, words] sparse float32."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            token_pattern=r"(?u)\b\w+\b", stop_words="english", sublinear_tf=True, use_idf=False, dtype=np.float32
        )
        try:
            return vectorizer.fit_transform(texts)
        except ValueError:  # no text has a word, so none is similar to another
            return np.zeros((len(texts), 1), dtype=np.float32)


class EmbeddingSimilarity(TextSimilarity):
    """Cosine of sentence embeddings; needs the extra ``retrieval``. Every text is embedded once.

    Args:
        model_name: a sentence-transformers model by name or local path.
        threshold: as for `TextSimilarity`; the scale differs between models, so check which pairs yours finds.
        device: where it runs; None lets sentence-transformers choose.
        batch_size: texts in one forward pass.
    """

    def __init__(
        self,
        model_name: str = "Qwen/Qwen3-Embedding-0.6B",
        threshold: float = 0.9,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(threshold)
        require_at_least(1, "similarity.batch_size", batch_size)
        self.model_name = model_name
        self.device = device
        self.batch_size = batch_size
        self._encoder: Any = None
        self._embedded: dict[str, NDArray[np.float32]] = {}

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return [texts, width] float32."""
        new = [text for text in dict.fromkeys(texts) if text not in self._embedded]
        if new:
            if self._encoder is None:
                self._encoder = load_encoder(self.model_name, self.device)
            found = self._encoder.encode(new, batch_size=self.batch_size, normalize_embeddings=True)
            self._embedded.update(zip(new, np.asarray(found, dtype=np.float32), strict=True))
        return np.stack([self._embedded[text] for text in texts])
