"""Ids of texts and chats: how many there can be, and how they are made."""

from sgsd_lightning.encoding.bounds import tokens_per_byte

__all__ = ["tokens_per_byte"]
