"""Extracts a completion's answer: from a box, an answer tag, or the words "the answer is"."""

from __future__ import annotations

import re

from sgsd_lightning.verifiers.math.boxes import BOX, CUT_OFF, boxed_answer

THINKING = re.compile(
    r"[<\[◁](/?)(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)[>\]▷]|"
    r"<\|(?:begin|start|(end))_of_(?:thought|thinking|reasoning)\|>",
    re.IGNORECASE,
)
TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
HEADING = re.compile(
    r"\b(?:final[^\S\n]{1,4})?answer(?:[^\S\n]{1,4}is\b|[^\S\n]{0,4}(?:\*\*|__)?[^\S\n]{0,4}[:=]|"
    r"(?<=swer)(?:\*\*|__)?[^\S\n]{0,4}$)|"
    r"\bfinal(?:[^\S\n]{1,4}(?:result|value))?(?:\*\*|__)?[^\S\n]{0,4}[:=]|^####(?!#)[^\S\n]{0,4}(?=[^\S\n]{0,4}\S)",
    re.IGNORECASE | re.MULTILINE,
)
LONE_HEADING = re.compile(r"[#*_\s\d.]*(?:the\s+)?(?:final\s+)?answer(?:\*\*|__)?\s*", re.IGNORECASE)
UNDERLINE = re.compile(r"(?:={3,}|-{3,})[^\S\n]*(?:\n|$)")
REASON = re.compile(r"(?<=\S)\s*,?\s+(?:because|since)\b.*", re.DOTALL)
LINE_EDGES = " \t\r\f\v:*_"
SENTENCE_END = re.compile(r"[.!?](?:\*\*)?\s+(?=[A-Z\"'(])")
DISPLAYS = ((r"\[", r"\]"), ("$$", "$$"))
MAX_HEADING_LENGTH = 60
WORDS_IN_A_RESULT = 3
MAX_BARE_REPLY = 80


def extract_answer(text: str) -> str | None:
    r"""Return the final answer of a completion, as it is spelt; None if there is none.

    In this order: the ``\boxed{...}`` (``\fbox{...}`` and the brace-less ``\boxed 5`` too), several of them as one list
    unless words such as "so" or "wait" between them retract the earlier ones; the last ``<answer>...</answer>``; the
    last ``Answer: ...``, ``the answer is ...`` or ``#### ...`` up to the end of its sentence or line, or the line or
    displayed formula below. If the last of these is cut off, no earlier one is taken instead. Unfinished
    thinking does not count, and finished thinking counts only if nothing follows it. An empty box, tag or line is no
    answer, but a reply after thinking that is a value alone is one. Takes time linear in the text.
    """
    thinking, said = _split_thinking(text)
    if not thinking.strip():
        return _answer(said)
    return (_answer(said) or _bare_reply(said)) if said.strip() else _answer(thinking)


def _split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking and the reply: the text before unfinished thinking, else after the last finished one."""
    tags = list(THINKING.finditer(text))
    if not tags:
        return "", text
    if not _closes(tags[-1]):
        # what is said is before the first tag of the last, unfinished thinking
        first = len(tags) - 1
        while first > 0 and not _closes(tags[first - 1]):
            first -= 1
        start = tags[first - 1].end() if first > 0 else 0
        return "", text[start : tags[first].start()]
    opening = next((tag for tag in tags if not _closes(tag)), None)
    start = opening.end() if opening and opening.end() <= tags[-1].start() else 0
    return text[start : tags[-1].start()], text[tags[-1].end() :]


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag[1] or tag[2])


def _bare_reply(text: str) -> str | None:
    """Return a reply after thinking that is one short line with a value or a word; None for a sentence."""
    line = text.strip()
    if len(line) > MAX_BARE_REPLY or "\n" in line or BOX.search(line) or TAG.search(line) or HEADING.search(line):
        return None
    line = line.strip(LINE_EDGES).rstrip(". ").strip(LINE_EDGES)
    words = re.findall(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}", line)
    return line or None if len(words) < 2 else None


def _answer(text: str) -> str | None:
    for find in (boxed_answer, _last_tag, _last_line):
        answer = find(text)
        if answer is not None:
            return None if answer == CUT_OFF else answer
    return None


def _last_tag(text: str) -> str | None:
    tags = list(TAG.finditer(text))
    if tags and not tags[-1][1]:
        return CUT_OFF
    for opening, closing in zip(reversed(tags[:-1]), reversed(tags[1:]), strict=True):
        if not opening[1] and closing[1]:
            answer = text[opening.end() : closing.start()].strip()
            if answer:
                return boxed_answer(answer) or answer
    return None


def _last_line(text: str) -> str | None:
    for heading in reversed(list(HEADING.finditer(text))):
        if _is_prose(text, heading):
            continue
        found = _below(text, heading.end())
        if heading[0].startswith("#"):
            if re.search(r"\d", found) and len(re.findall(r"[a-zA-Z]{3,}", found)) < WORDS_IN_A_RESULT:
                return found
            continue
        if found or not text[heading.end() :].strip(LINE_EDGES + "\n#"):
            return found or CUT_OFF
    return None


def _is_prose(text: str, heading: re.Match[str]) -> bool:
    """Whether "answer" ends a line without a colon, and the line is more than a heading."""
    if heading[0][-1] in ":=#" or heading[0].lower().rstrip().endswith("is") or heading[0].startswith("#"):
        return False
    start = max(text.rfind("\n", 0, heading.start()) + 1, heading.start() - MAX_HEADING_LENGTH)
    return LONE_HEADING.fullmatch(text[start : heading.end()]) is None


def _below(text: str, start: int) -> str:
    """Return the rest of the line or, if that is empty, the next line or displayed formula."""
    start = _skip_edges(text, start)
    if underline := UNDERLINE.match(text, start):
        start = _skip_edges(text, underline.end())
    for opening, closing in DISPLAYS:
        if text.startswith(opening, start):
            end = text.find(closing, start + len(opening))
            return text[start + len(opening) : end].strip() if end >= 0 else ""
    end = text.find("\n", start)
    line = text[start : len(text) if end < 0 else end].strip(LINE_EDGES)
    return REASON.sub("", SENTENCE_END.split(line, maxsplit=1)[0]).rstrip(". ").strip(LINE_EDGES)


def _skip_edges(text: str, start: int) -> int:
    while start < len(text) and (text[start] in LINE_EDGES or text[start] == "\n"):
        start += 1
    return start
