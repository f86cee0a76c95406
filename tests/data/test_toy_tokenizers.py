"""The project's own tokenizers: any text survives, the chat template renders as Qwen3's does, both survive saving."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.toy.bank import load_toy_bank
from sgsd_lightning.toy.problems import toy_problems, trace
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE
from sgsd_lightning.toy.tokenizer import toy_tokenizer

MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>")
TOKENIZERS = {"byte": cache(byte_tokenizer), "toy": cache(toy_tokenizer)}
any_tokenizer = pytest.mark.parametrize("name", list(TOKENIZERS))


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@any_tokenizer
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_survives_encoding(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


@any_tokenizer
@pytest.mark.parametrize(
    "text", [" 3 + 4", "3 +  4\n\n\n", "a<think>\n\n</think>b<|im_end|>", "\u221a2 \u00b7 \U0001f600\r\n"]
)
def test_awkward_text_survives_encoding(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    assert tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False) == text


@any_tokenizer
@pytest.mark.parametrize("mark", [*MARKS, "\n"])
def test_marks_and_newlines_are_one_token_each(name: str, mark: str) -> None:
    assert len(ids_of(TOKENIZERS[name](), mark)) == 1


def test_a_paragraph_break_is_one_token_of_the_toy_as_in_qwen3() -> None:
    assert len(ids_of(TOKENIZERS["toy"](), "\n\n")) == 1


@any_tokenizer
def test_end_padding_and_specials_are_as_in_qwen3(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    text = "<|im_start|>3<think></think><|im_end|><|endoftext|>"
    assert tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=True) == "3<think></think>"


@any_tokenizer
def test_the_chat_template_closes_the_think_tags_only_when_thinking_is_off(name: str) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4"}]
    head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n3 + 4<|im_end|>\n"
    render = TOKENIZERS[name]().apply_chat_template
    assert render(chat, tokenize=False) == head
    opened = head + "<|im_start|>assistant\n"
    assert render(chat, tokenize=False, add_generation_prompt=True) == opened
    assert render(chat, tokenize=False, add_generation_prompt=True, enable_thinking=True) == opened
    closed = render(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert closed == opened + "<think>\n\n</think>\n\n"


@any_tokenizer
def test_an_assistant_turn_is_rendered_and_an_unknown_role_is_refused(name: str) -> None:
    render = TOKENIZERS[name]().apply_chat_template
    assert render([{"role": "assistant", "content": "7"}], tokenize=False) == "<|im_start|>assistant\n7<|im_end|>\n"
    with pytest.raises(Exception, match="role must be system, user or assistant; got tool"):
        render([{"role": "tool", "content": "7"}], tokenize=False)


@any_tokenizer
def test_saving_and_loading_changes_nothing(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "Evaluate modulo ten:\n3 + 4 * 2 \u2264 \u221a5 <think>"}]
    arguments = {"add_generation_prompt": True, "enable_thinking": False}
    before = tokenizer.apply_chat_template(chat, **arguments)["input_ids"]
    assert loaded.apply_chat_template(chat, **arguments)["input_ids"] == before
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert loaded.padding_side == "left"


def test_toy_prompts_are_short_and_use_whole_words() -> None:
    tokenizer = TOKENIZERS["toy"]()
    bank = load_toy_bank()
    problem = max(toy_problems("train", 100), key=lambda p: len(p.text))
    for skill, mistake in zip(bank["general_skills"], bank["common_mistakes"], strict=True):
        context = PAIR_TEMPLATE.format_map({**skill, **mistake})
        chat = [{"role": "user", "content": TEACHER_TEMPLATE.format(context=context, problem=problem.text)}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False)["input_ids"]
        assert len(ids) <= 60
        words = [tokenizer.decode([i]).strip() for i in ids if i < 256]
        assert all(len(word) <= 1 and not (word.isalpha() and word != "a") for word in words), words


def test_the_student_prompt_and_a_trace_have_one_token_per_number_and_operator() -> None:
    tokenizer = TOKENIZERS["toy"]()
    assert len(ids_of(tokenizer, "3 + 4 * 2 - 1")) == 7
    assert len(ids_of(tokenizer, trace("3 + 4 * 2"))) == 2 * 6 + 3
    assert len(ids_of(tokenizer, STUDENT_TEMPLATE.format(problem="3 + 4"))) == 5 + 3


def test_the_byte_tokenizer_uses_one_token_per_byte() -> None:
    text = "x \u2265 1, y\nz"
    assert len(ids_of(TOKENIZERS["byte"](), text)) == len(text.encode())
    assert len(TOKENIZERS["byte"]()) == 256 + len(MARKS)
