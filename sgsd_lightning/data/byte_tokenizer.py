"""A tokenizer of bytes: any text, no download, for models with random weights."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from sgsd_lightning.data.byte_level import byte_level_tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, plus ``"\\n\\n"``, the chat markers and the think tags; a chat template like Qwen3's.

    End of sequence is ``<|im_end|>``, padding is ``<|endoftext|>`` and there is no beginning-of-sequence token.
    """
    return byte_level_tokenizer(words=("\n\n",), pattern=r"\n\n|\n|[^\n]")
