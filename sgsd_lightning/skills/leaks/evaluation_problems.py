"""Evaluation problems, and whether a text is one of them or repeats words of one."""

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
"""A shorter evaluation problem is too little to be recognised inside another text."""
MAX_SHARING = 2
"""Words that stand in a row in more evaluation problems than this are a turn of phrase, as AIME's problems end in."""


def normalised_problem_text(text: str) -> str:
    """A problem without what makes no difference to it: case, spaces, LaTeX's delimiters and layout, punctuation.

    Numbers, names and operators stay, one space between each.
    """
    text = unicodedata.normalize("NFKC", text.translate(_SAME))
    text = _FRACTION.sub(r"\\frac", _LAYOUT.sub(" ", _TEXT_COMMAND.sub(" ", text)))
    tokens = _TOKEN.findall(text.casefold())
    return " ".join(token for token in tokens if token in _OPERATORS or token.isalnum())


def words_of(text: str) -> list[str]:
    """The words, numbers and letters of a text as `normalised_problem_text` has them, without operators."""
    return [token for token in normalised_problem_text(text).split() if token not in _OPERATORS]


class EvaluationProblems:
    """Texts that must neither be trained on nor shown to a policy; made once, asked often.

    Args:
        texts: the problems' texts.
        ngram_words: how many words in a row make an overlap. A problem of fewer words overlaps where all of it, at
            least ``MIN_WORDS``, stands in a text. Runs that more than ``MAX_SHARING`` of the problems share do not
            count.
    """

    def __init__(self, texts: Iterable[str] = (), ngram_words: int = 8) -> None:
        require_at_least(MIN_WORDS, "leaks.ngram_words", ngram_words)
        self.ngram_words = ngram_words
        problems = {normalised_problem_text(text) for text in texts} - {""}
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
        """How many different problems there are."""
        return len(self._whole)

    def contains(self, text: str) -> bool:
        """Whether a problem's text is one of these, whatever its spelling."""
        return normalised_problem_text(text) in self._whole

    def overlap(self, text: str) -> str | None:
        """The first words in a row that the text has in common with one of these problems; None for none."""
        if not self._runs:
            return None
        words = words_of(text)
        for length in self._lengths:
            for run in _runs(words, length):
                if hash(run) in self._runs:
                    return " ".join(run)
        return None


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[first : first + length]) for first in range(len(words) - length + 1))
