"""Where a completion says its answer: in a box, in an answer tag, or on an answer line."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{\w-])")
TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
LINE = re.compile(
    r"^[^\S\n]*(?:#+[^\S\n]*)?(?:\*\*|__)?(?:the[^\S\n]+)?(?:final[^\S\n]+)?answer"
    r"(?:[^\S\n]+is\b|(?:\*\*|__)?[^\S\n]*:)[^\S\n]*:?(?:\*\*|__)?[^\S\n]*(\S[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)


def extract_answer(text: str) -> str | None:
    r"""The answer that a completion ends with, as it spells it; None where there is none.

    In this order: the last ``\boxed{...}`` whose braces close (``\fbox{...}`` and the brace-less ``\boxed 5`` too), the
    last ``<answer>...</answer>``, the last line ``Answer: ...`` or ``The answer is ...``. Linear in the text's length.
    """
    for answer in (_last_box(text), _last_tag(text), _last_line(text)):
        if answer is not None and answer.strip():
            return answer.strip()
    return None


def _last_box(text: str) -> str | None:
    closing = _closing_braces(text)
    for match in reversed(list(BOX.finditer(text))):
        start = match.end()
        if text[start] != "{":
            word = re.match(r"-?[\w./]+", text[start : start + 64])
            if word:
                return word[0].rstrip(".")
        elif start in closing:
            return text[start + 1 : closing[start]]
    return None


def _closing_braces(text: str) -> dict[int, int]:
    r"""Where each brace that closes does so; ``\{`` and ``\}`` are characters, not braces."""
    closing: dict[int, int] = {}
    is_open: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            is_open.append(match.start())
        elif match[0] == "}" and is_open:
            closing[is_open.pop()] = match.start()
    return closing


def _last_tag(text: str) -> str | None:
    end = text.lower().rfind("</answer>")
    if end < 0:
        return None
    start = text.lower().rfind("<answer>", 0, end)
    return None if start < 0 else text[start + len("<answer>") : end]


def _last_line(text: str) -> str | None:
    matches = LINE.findall(text)
    return re.sub(r"[\s.*_]+$", "", matches[-1]) if matches else None
