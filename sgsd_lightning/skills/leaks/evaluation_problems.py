"""Evaluation problems: detects texts that are one of them, or share a run of words with one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from sgsd_lightning.types.arguments import require_at_least

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|operatorname)\s*\*?")
_LAYOUT = re.compile(r"\\(?:left|right|[bB]igg?|displaystyle|textstyle|q?quad|(?:no)?limits)(?![A-Za-z])|\\[,;:! ]")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_TOKEN = re.compile(r"[^\W_]+|[-+*/=<>^_]|[^\w\s]")
_SAME = {
    ord(character): spelling
    for character, spelling in (
        ("\N{MINUS SIGN}", "-"),
        ("\N{EN DASH}", "-"),
        ("\N{MULTIPLICATION SIGN}", "*"),
        ("\N{MIDDLE DOT}", "*"),
        ("\N{GREEK SMALL LETTER PI}", " pi "),
        ("\N{DEGREE SIGN}", " circ "),
    )
}
_OPERATORS = frozenset("+-*/=<>^_")

MIN_WORDS = 3
"""Evaluation problems with fewer words are not searched for inside other texts."""
MAX_SHARING = 2
"""A run of words in more evaluation problems than this is a stock phrase, such as the last sentence of AIME's."""


def normalise_problem_text(text: str) -> str:
    """Normalise a problem: without case, spaces, LaTeX delimiters and layout, and punctuation.

    Numbers, names and operators stay, one space between each.
    """
    text = unicodedata.normalize("NFKC", text.translate(_SAME))
    text = _FRACTION.sub(r"\\frac", _LAYOUT.sub(" ", _TEXT_COMMAND.sub(" ", text)))
    tokens = _TOKEN.findall(text.casefold())
    return " ".join(token for token in tokens if token in _OPERATORS or token.isalnum())


def split_words(text: str) -> list[str]:
    """Split a text into the words, numbers and letters of `normalise_problem_text`, without operators."""
    return [token for token in normalise_problem_text(text).split() if token not in _OPERATORS]


class EvaluationProblems:
    """The problems of evaluations, which must neither be trained on nor shown to a policy; an index to search.

    Args:
        texts: the problems' texts.
        ngram_words: the length of a run of words that makes an overlap. A shorter problem overlaps with a text that
            contains all its words, at least ``MIN_WORDS``. Runs in more than ``MAX_SHARING`` problems do not count.
    """

    def __init__(self, texts: Iterable[str] = (), ngram_words: int = 8) -> None:
        require_at_least(MIN_WORDS, "leaks.ngram_words", ngram_words)
        self.ngram_words = ngram_words
        problems = {normalise_problem_text(text) for text in texts} - {""}
        self._whole = frozenset(problems)
        counts: Counter[int] = Counter()
        lengths = set()
        for problem in problems:
            words = [token for token in problem.split() if token not in _OPERATORS]
            length = min(ngram_words, len(words))
            if length >= MIN_WORDS:
                lengths.add(length)
                counts.update({hash(run) for run in _runs(words, length)})
        self._runs = frozenset(run for run, count in counts.items() if count <= MAX_SHARING)
        self._lengths = sorted(lengths)

    def __len__(self) -> int:
        """The number of different problems."""
        return len(self._whole)

    def contains(self, text: str) -> bool:
        """Whether a text is one of these problems after normalisation."""
        return normalise_problem_text(text) in self._whole

    def overlap(self, text: str) -> str | None:
        """Return the first run of words that a text shares with one of these problems; None without one."""
        if not self._runs:
            return None
        words = split_words(text)
        for length in self._lengths:
            for run in _runs(words, length):
                if hash(run) in self._runs:
                    return " ".join(run)
        return None


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[first : first + length]) for first in range(len(words) - length + 1))
