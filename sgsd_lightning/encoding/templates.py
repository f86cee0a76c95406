"""What a chat template does with the messages that it is given: what it drops, moves, repeats, and adds of its own."""

from __future__ import annotations

from itertools import groupby, pairwise

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.encoding.chats import TemplateArgs, render_chats
from sgsd_lightning.encoding.marks import Marks, TornTextError
from sgsd_lightning.types import Messages

_CLOCK = "strftime_now"
_STOPPED_CLOCK = "{%- macro strftime_now(format) -%}DATE{%- endmacro -%}"
"""Before a template, it stands in for the function that transformers gives it."""


def find_changes(
    tokenizer: PreTrainedTokenizerBase, chat: Messages, template_args: TemplateArgs
) -> list[tuple[str, str]]:
    """What the template does to messages beside writing each once, in order: the message's role, and what.

    White space around a message may go. Found by marks inside the messages, not by searching for their words.
    """
    found = []
    starts: list[tuple[int, str]] = []
    for place, message in enumerate(chat):
        text = message["content"].strip()
        if not text:
            continue
        arrived = _arrived(tokenizer, chat, place, template_args)
        if arrived is None:
            found.append((message["role"], "cuts"))
        elif not arrived:
            found.append((message["role"], "drops"))
        elif len(arrived) > 1 or arrived[0][1] == text * (len(arrived[0][1]) // len(text)) != text:
            found.append((message["role"], "repeats"))
        elif arrived[0][1] != text:
            found.append((message["role"], "changes"))
        else:
            starts.append((arrived[0][0], message["role"]))
    for (start, role), (next_start, _) in pairwise(starts):
        if start > next_start:
            found.append((role, "moves"))
    return found


def has_generation_prompt(tokenizer: PreTrainedTokenizerBase, chat: Messages, template_args: TemplateArgs) -> bool:
    """Whether the template writes anything where the assistant's answer starts."""
    texts = [render_chats(tokenizer, [chat], template_args, is_continued=flag)[0] for flag in (True, False)]
    return texts[0] != texts[1]


def reads_the_clock(tokenizer: PreTrainedTokenizerBase, chat: Messages, template_args: TemplateArgs) -> bool:
    """Whether a prompt of another day, or another second, is another prompt."""
    template = tokenizer.get_chat_template(template_args.get("chat_template"))
    if _CLOCK not in template:
        return False
    first, second = (
        render_chats(
            tokenizer, [chat], {**template_args, "chat_template": _STOPPED_CLOCK.replace("DATE", date) + template}
        )
        for date in ("1", "2")
    )
    return first != second


def _arrived(
    tokenizer: PreTrainedTokenizerBase, chat: Messages, place: int, template_args: TemplateArgs
) -> list[tuple[int, str]] | None:
    """Where the text of a message stands in the rendered chat, and what it is there; None where it is cut."""
    marks = Marks.unlike([*(text for message in chat for text in message.values()), str(template_args)])
    marked = [dict(message) for message in chat]
    marked[place]["content"] = marks.mark(marked[place]["content"], hidden=())
    (rendered,) = render_chats(tokenizer, [marked], template_args)
    try:
        content = marks.read(rendered)
    except TornTextError:
        return None
    runs = groupby(range(len(content.text)), key=lambda index: content.is_content[index])
    indices = [list(run) for is_content, run in runs if is_content]
    return [(run[0], content.text[run[0] : run[-1] + 1]) for run in indices]
