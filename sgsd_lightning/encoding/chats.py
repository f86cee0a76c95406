"""Ids of chats: the one place where text becomes ids for a model.

A message is text. What a tokenizer would make a control token of, such as ``<|im_end|>``, is cut in two before it is
encoded, wherever it came from a message; the template's own control tokens stay. Chats without such strings get exactly
the ids of ``apply_chat_template``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sgsd_lightning.encoding.marks import MarkedText, Marks, TornTextError
from sgsd_lightning.encoding.reserved import ReservedStrings, Span, Strings, place_cuts, reserved_strings
from sgsd_lightning.types import Messages

TemplateArgs = Mapping[str, Any]
NUM_ROUNDS = 8
"""How often cuts are added where a tokenizer's normalizer still makes a control token."""


class TemplateError(ValueError):
    """A chat template that cannot render a chat."""


def render_chats(
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Messages],
    template_args: TemplateArgs,
    *,
    is_continued: bool = True,
) -> list[str]:
    """What the chat template makes of each chat; if continued, up to where the assistant's answer starts.

    Raises:
        TemplateError: naming the tokenizer, the roles of the messages and what the template says.
    """
    if tokenizer.chat_template is None and not template_args.get("chat_template"):
        raise no_template(tokenizer)
    plain = [[dict(message) for message in chat] for chat in chats]
    try:
        rendered: list[str] = tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=is_continued, **template_args
        )
    except Exception as error:  # a template may do anything
        raise TemplateError(_what_it_says(tokenizer, plain, template_args, error)) from error
    return rendered


def no_template(tokenizer: PreTrainedTokenizerBase) -> TemplateError:
    """What is said of a tokenizer without a chat template, such as a base model's."""
    return TemplateError(
        f"the tokenizer {tokenizer.name_or_path!r} has no chat template, which prompts are rendered with; give one as "
        "prompts.chat_template (its text, or a file; a language model's in its template_args), or take an "
        "instruction-tuned model"
    )


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], template_args: TemplateArgs
) -> list[tuple[int, ...]]:
    """The ids of each chat, up to where the assistant's answer starts; no control id comes from a message.

    Raises:
        TemplateError: if the template cannot render one of them.
        ValueError: if a control token in a message cannot be told from the template's.
    """
    return encode_rendered(tokenizer, chats, render_chats(tokenizer, chats, template_args), template_args)


def encode_rendered(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], texts: Sequence[str], template_args: TemplateArgs
) -> list[tuple[int, ...]]:
    """The same of chats that are rendered already; equal texts are encoded once."""
    if not chats:
        return []
    reserved = _reserved(tokenizer, template_args)
    distinct = list(dict.fromkeys(texts))
    ids_of = dict(zip(distinct, tokenizer(distinct, add_special_tokens=False)["input_ids"], strict=True))
    found = []
    for chat, text in zip(chats, texts, strict=True):
        ids = tuple(ids_of[text])
        if _holds(reserved, chat) or reserved.control_ids_of(ids) != _baseline(
            tokenizer, reserved, chat, template_args
        ):
            ids = _encode_marked(tokenizer, reserved, chat, template_args)
        found.append(ids)
    return found


def holds_reserved(tokenizer: PreTrainedTokenizerBase, chat: Messages, template_args: TemplateArgs) -> bool:
    """Whether a message holds what the tokenizer, or its template, would not take as text."""
    return _holds(_reserved(tokenizer, template_args), chat)


def _holds(reserved: ReservedStrings, chat: Messages) -> bool:
    return any(reserved.holds(text) for message in chat for text in _texts(message).values())


def _reserved(tokenizer: PreTrainedTokenizerBase, template_args: TemplateArgs) -> ReservedStrings:
    return reserved_strings(tokenizer, template_args.get("chat_template"))


def _baseline(
    tokenizer: PreTrainedTokenizerBase, reserved: ReservedStrings, chat: Messages, template_args: TemplateArgs
) -> tuple[int, ...] | None:
    """The control ids of the template around harmless texts; None where it cannot render these."""
    baselines = reserved.baselines
    shape = (repr(template_args), *((message["role"], *_filled(message)) for message in chat))
    if shape not in baselines:
        harmless = [{**message, **dict.fromkeys(_filled(message), "x")} for message in chat]
        try:
            (text,) = render_chats(tokenizer, [harmless], template_args)
        except TemplateError:
            baselines[shape] = None
        else:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            baselines[shape] = reserved.control_ids_of(ids)
    return baselines[shape]


def _filled(message: Mapping[str, str]) -> list[str]:
    """The names of its texts that hold more than white space."""
    return [name for name, text in _texts(message).items() if text and not text.isspace()]


def _encode_marked(
    tokenizer: PreTrainedTokenizerBase, reserved: ReservedStrings, chat: Messages, template_args: TemplateArgs
) -> tuple[int, ...]:
    """The ids of a chat whose texts are marked before the template sees them, and cut where they must be."""
    marks = Marks.unlike([*(text for message in chat for text in message.values()), str(template_args)])
    tags = Strings([*reserved.ids, *reserved.template_tags.strings])
    marked = [
        {**message, **{name: marks.mark(text, tags.spans(text)) for name, text in _texts(message).items()}}
        for message in chat
    ]
    (rendered,) = render_chats(tokenizer, [marked], template_args)
    try:
        content = marks.read(rendered)
    except TornTextError as error:
        raise ValueError(
            f"{_first_reserved(reserved, chat)} stands in a message, and the chat template of {_name(tokenizer)} cuts "
            "messages, so that it cannot be kept apart from the template's own; remove it from the text"
        ) from error
    return _encode_apart(tokenizer, reserved, content)


def _encode_apart(
    tokenizer: PreTrainedTokenizerBase, reserved: ReservedStrings, content: MarkedText
) -> tuple[int, ...]:
    cuts = _cuts(reserved.strings.spans(content.text), content)
    for _ in range(NUM_ROUNDS):
        pieces = _pieces(content.text, cuts)
        tokens = [token for piece in pieces for token in _encode_piece(tokenizer, piece, reserved.anchor)]
        if not tokenizer.is_fast:
            _check_count(reserved, content, [token.token_id for token in tokens])
            return tuple(token.token_id for token in tokens)
        wrong = [
            token.span for token in tokens if token.token_id in reserved.control_ids and _touches(token.span, content)
        ]
        if not wrong:
            return tuple(token.token_id for token in tokens)
        more = _cuts(wrong, content) - cuts
        if not more:
            start, end = wrong[0]
            raise _not_apart(content.text[start:end])
        cuts |= more
    raise _not_apart(content.text[wrong[0][0] : wrong[0][1]])


class _Piece(NamedTuple):
    text: str
    start: int


class _Token(NamedTuple):
    token_id: int
    span: Span


def _pieces(text: str, cuts: Iterable[int]) -> Iterator[_Piece]:
    places = [0, *sorted(cuts), len(text)]
    for start, end in pairwise(places):
        if start < end or len(places) == 2:
            yield _Piece(text[start:end], start)


def _encode_piece(tokenizer: PreTrainedTokenizerBase, piece: _Piece, anchor: str) -> list[_Token]:
    """Its tokens. A tokenizer that treats the start of a text specially finds the anchor there, which is left out."""
    anchor = anchor if piece.start else ""
    options = {"return_offsets_mapping": True} if tokenizer.is_fast else {}
    encoding = tokenizer(anchor + piece.text, add_special_tokens=False, **options)
    ids = encoding["input_ids"][1:] if anchor else encoding["input_ids"]
    if not tokenizer.is_fast:
        return [_Token(token_id, (0, 0)) for token_id in ids]
    shift = piece.start - len(anchor)
    offsets = encoding["offset_mapping"][1:] if anchor else encoding["offset_mapping"]
    return [_Token(token_id, (start + shift, end + shift)) for token_id, (start, end) in zip(ids, offsets, strict=True)]


def _cuts(spans: Iterable[Span], content: MarkedText) -> set[int]:
    """Where to cut so that no span that touches a message stays whole: at a message's edge if the span crosses one."""
    edges, inner = set(), []
    for start, end in spans:
        if not _touches((start, end), content):
            continue
        inside = content.is_content[start:end]
        if all(inside):
            inner.append((start, end))
        else:
            edges |= {start + place for place in range(1, len(inside)) if inside[place] != inside[place - 1]}
    return edges | place_cuts(span for span in inner if not any(span[0] < edge < span[1] for edge in edges))


def _touches(span: Span, content: MarkedText) -> bool:
    return any(content.is_content[span[0] : span[1]])


def _check_count(reserved: ReservedStrings, content: MarkedText, ids: Sequence[int]) -> None:
    """For tokenizers that do not say where a token came from: as many control ids as the template wrote."""
    written, last = 0, 0
    for start, end in sorted(reserved.strings.spans(content.text), key=lambda span: (span[0], -span[1])):
        if start >= last and not _touches((start, end), content):
            written, last = written + 1, end
    if len(reserved.control_ids_of(ids)) > written:
        raise _not_apart(content.text)


def _texts(message: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in message.items() if name != "role" and isinstance(text, str)}


def _first_reserved(reserved: ReservedStrings, chat: Messages) -> str:
    found = [string for message in chat for text in _texts(message).values() for string in reserved.found_in(text)]
    return repr(found[0]) if found else "what looks like a control token"


def _not_apart(text: str) -> ValueError:
    shown = text if len(text) <= 60 else text[:59] + "…"
    return ValueError(
        f"{shown!r} in a message becomes a control token of the tokenizer and cannot be cut; remove it from the text"
    )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return repr(tokenizer.name_or_path) if tokenizer.name_or_path else "the tokenizer"


def _what_it_says(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], template_args: TemplateArgs, error: Exception
) -> str:
    roles = " and ".join(sorted({message["role"] for chat in chats for message in chat}))
    shown = {name: value for name, value in template_args.items() if name != "chat_template"}
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    advice = (
        "; a template that takes no system message needs prompts.system_text: null" if "system" in roles.split() else ""
    )
    return (
        f"the chat template of {_name(tokenizer)} cannot render messages of {roles}"
        f"{f' under {shown}' if shown else ''}: {said}{advice}"
    )
