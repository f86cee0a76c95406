"""Ids of texts and chats: how they are made, so that text stays text, and how many there can be."""

from sgsd_lightning.encoding.bounds import tokens_per_byte
from sgsd_lightning.encoding.chats import (
    TemplateError,
    encode_chats,
    encode_rendered,
    holds_reserved,
    no_template,
    render_chats,
)
from sgsd_lightning.encoding.reserved import reserved_strings

__all__ = [
    "TemplateError",
    "encode_chats",
    "encode_rendered",
    "holds_reserved",
    "no_template",
    "render_chats",
    "reserved_strings",
    "tokens_per_byte",
]
