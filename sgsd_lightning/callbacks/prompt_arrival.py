"""Checks that every part of a prompt arrives in its token ids, and reports what the template changed."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.encoding import reserved_strings
from sgsd_lightning.encoding.templates import find_changes, has_generation_prompt, reads_the_clock
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.prompts.chat import Prompt
from sgsd_lightning.types import Messages


def check_arrival(
    tokenizer: PreTrainedTokenizerBase, prompts: ChatPrompts, prompt: Prompt, parts: Mapping[str, str]
) -> list[str]:
    """One sentence for each thing that is not as it should be.

    Args:
        tokenizer: The policy's.
        prompts: Whose template arguments count.
        prompt: The chat of one role.
        parts: What its messages are made of, by name: ``problem``, ``system text``, ``privileged text``.
    """
    messages, role = prompt
    args = prompts.render_args(role)
    shown = "".join(message["content"] for message in messages)
    parts = {name: text for name, text in parts.items() if text.strip() and text.strip() in shown}
    warnings = []
    for sender, verb in find_changes(tokenizer, messages, args):
        held = [name for name, text in parts.items() if _sent_by(sender, text, messages)]
        what = f" ({' and '.join(held)})" if held else ""
        warnings.append(f"the chat template {verb} the {sender} message{what} of the {role} prompt")
    if not warnings:
        arrived = _letters(tokenizer.decode(list(prompts.render(tokenizer, messages, role))))
        warnings += [
            f"the {name} does not arrive whole in the ids of the {role} prompt: the tokenizer changes it"
            for name, text in parts.items()
            if _letters(text) not in arrived
        ]
    if not has_generation_prompt(tokenizer, messages, args):
        warnings.append(
            f"the chat template ignores add_generation_prompt: nothing tells where the {role} prompt's answer starts"
        )
    if reads_the_clock(tokenizer, messages, args):
        warnings.append(
            f"the {role} prompt changes with the clock (strftime_now in the chat template), so that runs differ from "
            "day to day and a resume may be refused; fix the date in the template arguments, or in a "
            "prompts.chat_template of your own"
        )
    reserved = reserved_strings(tokenizer, args.get("chat_template"))
    warnings += [
        f"the {name} of the {role} prompt holds {', '.join(map(repr, found))}, which is encoded as text"
        for name, text in parts.items()
        if (found := reserved.found_in(text))
    ]
    return warnings


def _sent_by(sender: str, text: str, messages: Messages) -> bool:
    return any(message["role"] == sender and text.strip() in message["content"] for message in messages)


def _letters(text: str) -> str:
    """Without what tokenizers may change: white space, composition, and case."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().replace("\u2581", "").split())
