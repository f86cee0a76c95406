"""A tokenizer of bytes: any text, no download, for models with random weights."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
THINK_TAGS = ("<think>", "</think>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token a UTF-8 byte, the chat markers and the think tags; a chat template in the manner of Qwen3.

    Encodes any text and decodes it back exactly. 261 ids, the same on every machine. End of sequence is
    ``<|im_end|>``, padding is ``<|endoftext|>``, and there is no beginning-of-sequence token.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    markers = (END_OF_TEXT, TURN_START, TURN_END)
    backend.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers])
    # as in Qwen3, the tags are text: decoding without special tokens keeps them
    backend.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in THINK_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
