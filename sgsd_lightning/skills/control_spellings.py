"""How control tokens of chat templates are spelt, for texts that are looked at before any tokenizer is known."""

from __future__ import annotations

import re

_SPELLINGS = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s]{1,60}[|\uff5c]>"  # <|im_end|>, <|begin_of_text|>, and DeepSeek's wide bars
    r"|</?(?:s|bos|eos|pad|unk|mask|cls|sep|think|thinking|tool_call|tool_response|tools|start_of_turn|end_of_turn"
    r"|start_of_image|end_of_utterance|start_header_id|end_header_id|image|audio|video)>"
    r"|<<SYS>>|<</SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|IMG|gMASK)\]"
    r"|\[(?:CLS|SEP|PAD|MASK|UNK|BOS|EOS)\]"
)


def find_control_spellings(text: str) -> list[str]:
    """What looks like a control token of a well-known model, each once, in order."""
    return list(dict.fromkeys(match.group() for match in _SPELLINGS.finditer(text)))
