"""Where a completion says its answer: in a box, in an answer tag, or after the words "the answer is"."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox)(?:(?=[{\d])|\s+(?=[{\w.-]))")
BARE_BOX = re.compile(r"-?[\w./]+")
MAX_BARE_LENGTH = 64
HEADING = re.compile(
    r"\b(?:final[^\S\n]{1,4})?answer(?:[^\S\n]{1,4}is\b|[^\S\n]{0,4}(?:\*\*|__)?[^\S\n]{0,4}[:=])", re.IGNORECASE
)
LINE_EDGES = " \t\r\f\v:*_"
SENTENCE_END = re.compile(r"[.!?](?:\*\*)?\s+(?=[A-Z\"'(])")


def extract_answer(text: str) -> str | None:
    r"""The answer that a completion ends with, as it spells it; None where there is none.

    In this order: the last ``\boxed{...}`` whose braces close (``\fbox{...}`` and the brace-less ``\boxed 5`` too), the
    last ``<answer>...</answer>``, the last ``Answer: ...`` or ``the answer is ...`` up to the end of its sentence or
    line. An empty box, tag or line is no answer, nor is an unclosed box. Takes time linear in the text.
    """
    for answer in (_last_box(text), _last_tag(text), _last_line(text)):
        if answer is not None:
            return answer
    return None


def _last_box(text: str) -> str | None:
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    closing = _closing_braces(text)
    for box in reversed(boxes):
        start = box.end()
        if text[start] == "{":
            answer = text[start + 1 : closing[start]].strip() if start in closing else ""
        else:
            word = BARE_BOX.match(text[start : start + MAX_BARE_LENGTH])
            answer = word[0].rstrip(".") if word else ""
        if answer:
            return answer
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
    tags = list(re.finditer(r"<(/?)answer>", text, re.IGNORECASE))
    for opening, closing in zip(reversed(tags[:-1]), reversed(tags[1:]), strict=True):
        if not opening[1] and closing[1]:
            answer = text[opening.end() : closing.start()].strip()
            if answer:
                return answer
    return None


def _last_line(text: str) -> str | None:
    for heading in reversed(list(HEADING.finditer(text))):
        end = text.find("\n", heading.end())
        line = text[heading.end() : len(text) if end < 0 else end].strip(LINE_EDGES)
        sentence = SENTENCE_END.split(line, maxsplit=1)[0].rstrip(". ").strip(LINE_EDGES)
        if sentence:
            return sentence
    return None
