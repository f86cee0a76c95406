"""What is read: chats and their templates."""

from sgsd_lightning.prompts.chat import ChatPrompts, PromptRole, fill

__all__ = ["ChatPrompts", "PromptRole", "fill"]
