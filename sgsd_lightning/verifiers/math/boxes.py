r"""The boxes of a completion: ``\boxed{...}`` and ``\fbox{...}``."""

from __future__ import annotations

import re

from sgsd_lightning.verifiers.math.exact_numbers import exact_number
from sgsd_lightning.verifiers.math.labels import split_label
from sgsd_lightning.verifiers.math.normalization import MAX_LENGTH, is_same_text, normalize

CUT_OFF = "\x00"
"""Stands for the content of a last box that is not closed."""
BOX = re.compile(r"\\(?:boxed|fbox)(?:(?=[{\d])|\s+(?=[{\d.-]|[A-Z](?!\w)))")
BARE_BOX = re.compile(r"-?(?:[\d./]+|[A-Z](?!\w))")
INNER_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
WHOLE_BOX = re.compile(r"\{([^{}]*)\}")
MAX_BARE_LENGTH = 64
MAX_PARTS = 16
PLACEHOLDER = re.compile(
    r"(?:\\(?:text|mathrm|textbf)\s*\{)?\s*[<\[(]?\s*(?:(?:your|the|final|my|numerical|correct|insert)[\s_-]+)*"
    r"(?:answer|result|solution|value|number|expression)(?:\s+here)?\s*[>\])]?\s*\}?|\\?(?:\.\.\.|ldots|cdots|dots)|…",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(
    r"\b(?:so|no|not|wait|actually|but|instead|correct\w*|mistake\w*|wrong|redo\w*|recheck\w*|check\w*|thus|therefore|"
    r"hence|final\w*|answer|simplif\w+|reconsider\w*|hmm|oops|sorry|rather|better|equals|which|gives|then|now|step|next|yields?|adding|"
    r"subtracting|multiplying|dividing|comput\w*|calculat\w*)\b",
    re.IGNORECASE,
)
PART = re.compile(r"(?:^|\s|\*)\(?(?:[b-h]|i{2,3}|iv|v)\)|\b(?:part|case|problem|question)\s+\(?\w", re.IGNORECASE)


def boxed_answer(text: str) -> str | None:
    """Return the contents of the boxes, joined by commas; None without a box, CUT_OFF if the last is not closed.

    Empty boxes and placeholders such as ``answer`` do not count, nor do boxes before words that retract them, nor
    repeated values.
    """
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    closing = _closing_braces(text)
    if text[boxes[-1].end()] == "{" and boxes[-1].end() not in closing:
        return CUT_OFF
    found: list[tuple[int, int, str]] = []
    for box in boxes:
        start = box.end()
        if found and box.start() < found[-1][1]:
            continue  # inside another
        end, content = _content(text, start, closing)
        if content and not PLACEHOLDER.fullmatch(content):
            found.append((box.start(), end, content))
    if not found:
        return None
    kept = [found[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(found[:-1]), reversed(found[1:]), strict=True):
        between = text[end:start]
        if (TAKEN_BACK.search(between) and not PART.search(between)) or len(kept) > MAX_PARTS:
            break
        if not any(_is_same(content, other) for other in kept):
            kept.append(content)
    return ", ".join(reversed(kept))


def _content(text: str, start: int, closing: dict[int, int]) -> tuple[int, str]:
    if text[start] != "{":
        word = BARE_BOX.match(text[start : start + MAX_BARE_LENGTH])
        return start + 1, word[0].rstrip(".") if word else ""
    if start not in closing:
        return start, ""
    content = text[start + 1 : closing[start]].strip()
    without = INNER_BOX.sub("", content)
    if without != content and (whole := WHOLE_BOX.fullmatch(without)):
        without = whole[1]
    return closing[start], without


def _is_same(content: str, other: str) -> bool:
    if content == other:
        return True
    if max(len(content), len(other)) > MAX_LENGTH:
        return False
    values = [split_label(normalize(side))[1] for side in (content, other)]
    numbers = exact_number(values[0]), exact_number(values[1])
    return is_same_text(*values) or (None not in numbers and numbers[0] == numbers[1])


def _closing_braces(text: str) -> dict[int, int]:
    r"""Map the position of each opening brace to that of its closing one; ``\{`` and ``\}`` are no braces."""
    closing: dict[int, int] = {}
    is_open: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            is_open.append(match.start())
        elif match[0] == "}" and is_open:
            closing[is_open.pop()] = match.start()
    return closing
