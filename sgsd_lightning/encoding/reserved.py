"""Reserved strings: what a tokenizer makes one token of wherever it stands, such as ``<|im_end|>``."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.encoding.bounds import tokens_per_byte

Span = tuple[int, int]
"""Where a string stands in a text: its first character, and one beyond its last."""

_TAG = re.compile(r"</?[A-Za-z][\w-]*>|\[/?[A-Z][A-Z_]*\]")


class Strings:
    """Strings to look for in texts, all at once."""

    def __init__(self, strings: Iterable[str]) -> None:
        self.strings = frozenset(string for string in strings if string)
        self._lengths: dict[str, set[int]] = defaultdict(set)
        for string in self.strings:
            self._lengths[string[0]].add(len(string))
        firsts = "".join(map(re.escape, self._lengths))
        self._first = re.compile(f"[{firsts}]") if firsts else re.compile(r"(?!)")

    def spans(self, text: str) -> list[Span]:
        """Every place where one of them stands, overlapping ones too, in order."""
        return [
            (start, start + length)
            for start in (match.start() for match in self._first.finditer(text))
            for length in sorted(self._lengths[text[start]])
            if text[start : start + length] in self.strings and start + length <= len(text)
        ]


class ReservedStrings:
    """A tokenizer's added tokens, special or not, and its special tokens.

    Left out are runs of white space (some tokenizers have them as added tokens) and, of tokens that are not special,
    single characters: both mean nothing but themselves.

    Args:
        tokenizer: any tokenizer of transformers.
        chat_template: what its chats are rendered with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> None:
        special = {str(token) for token in tokenizer.all_special_tokens}
        added = dict(tokenizer.added_tokens_decoder)
        special |= {token.content for token in added.values() if token.special}
        found = {token.content: token_id for token_id, token in added.items()}
        found |= {token: tokenizer.convert_tokens_to_ids(token) for token in special}
        self.ids: Mapping[str, int] = {
            string: token_id
            for string, token_id in found.items()
            if not _is_space(string) and (len(string) > 1 or string in special)
        }
        self.strings = Strings(self.ids)
        self.control_ids = frozenset(self.ids.values()) - _ids_of_the_unknown(tokenizer)
        """What no text may become; the id of unknown characters is not one of them."""
        self.template_tags = Strings(_TAG.findall(chat_template))
        """Tags that the chat template names, and may treat specially in a message, such as ``</think>``."""
        self.anchor = _anchor(tokenizer)
        """A token that can stand before a text that continues another, and be taken away again; "" where none is
        needed, or fit."""
        self.baselines: dict[object, tuple[int, ...] | None] = {}
        """By what a chat looks like, the control ids of its template alone."""
        self._normalize = _normalizer(tokenizer)

    @cached_property
    def _normalized(self) -> Strings:
        assert self._normalize is not None
        return Strings(
            string
            for raw in self.ids
            for string in (raw, self._normalize(raw))
            if len(string) > 1 and not _is_space(string)
        )

    def holds(self, text: str) -> bool:
        """Whether one of them stands in a text, or in what the tokenizer's normalizer makes of it."""
        if self.strings.spans(text) or self.template_tags.spans(text):
            return True
        return self._normalize is not None and bool(self._normalized.spans(self._normalize(text)))

    def found_in(self, text: str) -> list[str]:
        """Those that stand in a text as they are spelt, each once, in order."""
        return list(dict.fromkeys(text[start:end] for start, end in self.strings.spans(text)))

    def control_ids_of(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Those among ids, in order."""
        return tuple(token_id for token_id in ids if token_id in self.control_ids)


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, ReservedStrings]] = WeakKeyDictionary()


def reserved_strings(tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None) -> ReservedStrings:
    """Those of a tokenizer as it is now, under its own chat template or another; worked out once."""
    template = str(chat_template or tokenizer.chat_template or "")
    state = (len(tokenizer), template, tuple(map(str, tokenizer.all_special_tokens)))
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != state:
        known = _KNOWN[tokenizer] = (state, ReservedStrings(tokenizer, template))
    return known[1]


def place_cuts(spans: Iterable[Span]) -> set[int]:
    """The fewest places, each inside a span, such that every span of two characters or more has one."""
    cuts: set[int] = set()
    last = -1
    for start, end in sorted(spans, key=lambda span: (span[1], span[0])):
        if last <= start and end - start > 1:
            last = end - 1
            cuts.add(last)
    return cuts


def _ids_of_the_unknown(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The id of unknown characters, unless it has another meaning too."""
    others = {name: token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"}
    is_shared = tokenizer.unk_token in others.values()
    return set() if tokenizer.unk_token_id is None or is_shared else {tokenizer.unk_token_id}


def _is_space(string: str) -> bool:
    """SentencePiece spells a space as a low bar."""
    return not string.replace("\u2581", " ").strip()


def _anchor(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokens_per_byte(tokenizer) is not None:  # adds nothing to the start of a text
        return ""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and not (token.lstrip or token.rstrip or token.single_word):
            return str(token.content)
    return ""


def _normalizer(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str] | None:
    """What texts go through before they are looked up; None where they stay as they are."""
    if not tokenizer.is_fast:  # which of them normalizes what is nowhere said
        return lambda text: unicodedata.normalize("NFKC", text).lower()
    normalizer = tokenizer.backend_tokenizer.normalizer
    return None if normalizer is None else normalizer.normalize_str
