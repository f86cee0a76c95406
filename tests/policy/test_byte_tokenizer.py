"""The tokenizer of bytes: exact, and with a chat template in the manner of Qwen3."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
MESSAGES = [{"role": "user", "content": "1+1?"}]


@given(st.text())
def test_any_text_is_decoded_back_exactly(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids) == text


def test_markers_are_one_token_each_and_there_are_few_tokens() -> None:
    assert len(TOKENIZER) == 261
    assert len(TOKENIZER.encode("<|im_start|><think></think><|im_end|>")) == 4


def test_only_chat_markers_are_skipped_when_special_tokens_are() -> None:
    ids = TOKENIZER.encode("<think>a</think><|im_end|>")
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>a</think>"


def test_thinking_is_switched_off_by_an_empty_thought() -> None:
    plain = TOKENIZER.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    without = TOKENIZER.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert plain == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    assert without == plain + "<think>\n\n</think>\n\n"


def test_it_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\né <think>\n"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.chat_template == TOKENIZER.chat_template
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
