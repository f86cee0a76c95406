"""The chat template of the project's own tokenizers: ChatML with think tags, as Qwen3 renders it."""

from __future__ import annotations

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

CHAT_SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)
"""Skipped by ``decode(skip_special_tokens=True)``."""
THINK_TOKENS = (THINK_OPEN, THINK_CLOSE)
"""Whole tokens, but part of the text, as in Qwen3."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('role must be system, user or assistant; got ' ~ message.role) -}}"
    "{%- endif -%}"
    "{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{- '<|im_start|>assistant\\n' -}}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think>\\n\\n</think>\\n\\n' -}}"
    "{%- endif -%}"
    "{%- endif -%}"
)
