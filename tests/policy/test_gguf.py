"""GGUF files become folders with the same logits, once, and what cannot be read is said."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sgsd_lightning.policy import PretrainedPolicy, export_model
from sgsd_lightning.policy import gguf as conversion
from tests.support.gguf_files import tiny_llama, vocabulary, write_gguf

gguf = pytest.importorskip("gguf", reason="the extra laptop is not installed: make test-laptop")
IDS = torch.tensor([[1, 40, 41, 7, 200, 2, 90]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for each test."""
    monkeypatch.setenv(conversion.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits.float()


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_converted_file_gives_the_logits_of_the_model_it_was_made_of(is_tied: bool, tmp_path: Path) -> None:
    model = tiny_llama(is_tied=is_tied)
    write_gguf(tmp_path / "plain.gguf", model)
    loaded = PretrainedPolicy(str(tmp_path / "plain.gguf"), attention="sdpa").load_model()
    torch.testing.assert_close(_logits(loaded), _logits(model), atol=1e-4, rtol=1e-4)
    assert loaded.config.tie_word_embeddings is is_tied
    assert not hasattr(loaded.config, "quantization_config")


@pytest.mark.parametrize("type_name", ["Q4_1", "Q8_0", "Q5_0", "F16", "BF16"])
def test_quantised_weights_are_what_gguf_dequantises(type_name: str, tmp_path: Path) -> None:
    stood_for = write_gguf(tmp_path / "small.gguf", tiny_llama(), type_name)
    loaded = PretrainedPolicy(str(tmp_path / "small.gguf"), attention="sdpa").load_model()
    found = loaded.state_dict()
    for name, weight in stood_for.items():
        torch.testing.assert_close(found[name], weight, atol=0, rtol=0, msg=name)
    reference = tiny_llama()
    reference.load_state_dict(stood_for, strict=False)
    reference.tie_weights()
    torch.testing.assert_close(_logits(loaded), _logits(reference), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(_logits(loaded), _logits(tiny_llama()), atol=1e-4)


def test_the_tokenizer_and_its_chat_template_come_along(tmp_path: Path) -> None:
    write_gguf(tmp_path / "chat.gguf", tiny_llama())
    tokenizer = PretrainedPolicy(str(tmp_path / "chat.gguf")).load_tokenizer()
    chat = [{"role": "user", "content": "a b"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[0] == 1
    assert ids.count(2) == 1
    assert tokenizer.decode(ids) == text
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 0)


def test_digits_are_split_as_the_file_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two spaces before a digit: one token where digits are split off first, two where words take a space along."""
    expected = {"smollm": ["ĠĠ", "1"], "gpt-2": ["Ġ", "Ġ", "1"], "olmo-never-seen": ["Ġ", "Ġ", "1"]}
    assert {word for words in expected.values() for word in words} <= set(vocabulary())
    for splits, words in expected.items():
        write_gguf(tmp_path / f"{splits}.gguf", tiny_llama(), splits=splits)
        assert PretrainedPolicy(str(tmp_path / f"{splits}.gguf")).load_tokenizer().tokenize("  1") == words
    (warning,) = [record.getMessage() for record in caplog.records if "splits words as" in record.getMessage()]
    assert "olmo-never-seen" in warning


def test_a_file_is_converted_once_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "one.gguf", tiny_llama(seed=1))
    first = conversion.converted_folder(str(tmp_path / "one.gguf"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one.gguf").rename(tmp_path / "elsewhere/one.gguf")
    write_gguf(tmp_path / "one.gguf", tiny_llama(seed=2))
    assert conversion.converted_folder(str(tmp_path / "one.gguf")) != first
    monkeypatch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted again"))
    assert conversion.converted_folder(str(tmp_path / "elsewhere/one.gguf")) == first


def test_a_conversion_that_is_cut_off_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "cut.gguf", tiny_llama())

    def stop(_path: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "_convert", stop)
        with pytest.raises(KeyboardInterrupt):
            conversion.converted_folder(str(tmp_path / "cut.gguf"))
    assert list(cache.iterdir()) == []
    assert (conversion.converted_folder(str(tmp_path / "cut.gguf")) / "model.safetensors").stat().st_size > 1000


def test_two_processes_may_convert_at_once(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "both.gguf", tiny_llama())
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_convert_together, args=(tmp_path / "both.gguf", barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    (folder,) = cache.iterdir()
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 2


def _convert_together(path: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    torch.set_num_threads(1)
    convert: Callable[[Path, Path], None] = conversion._convert

    def convert_at_once(source: Path, folder: Path) -> None:
        barrier.wait(30)
        convert(source, folder)

    conversion._convert = convert_at_once
    conversion.converted_folder(str(path))


def test_other_weights_in_the_folder_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is what a later run reads."""
    write_gguf(tmp_path / "checked.gguf", tiny_llama())
    load = conversion._load_model
    monkeypatch.setattr(conversion, "_load_model", lambda *read: _with_a_changed_weight(load(*read)))
    with pytest.raises(ValueError, match="the converted weights give other logits"):
        conversion.converted_folder(str(tmp_path / "checked.gguf"))


def _with_a_changed_weight(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose forward pass does not follow its state dict, as when a conversion drops something."""
    hook = torch.nn.Module.register_forward_hook
    hook(model.model.layers[0].mlp, lambda *outputs: outputs[2] * 1.1)
    return model


def test_an_exported_policy_loads_and_answers(tmp_path: Path) -> None:
    write_gguf(tmp_path / "start.gguf", tiny_llama(), "Q8_0")
    policy = PretrainedPolicy(str(tmp_path / "start.gguf"), dtype="bfloat16", attention="sdpa")
    model, tokenizer = policy.load_model(), policy.load_tokenizer()
    export_model(model, tokenizer, tmp_path / "exported")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(_logits(loaded), _logits(model))
    again = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ids = again.apply_chat_template([{"role": "user", "content": "1"}], add_generation_prompt=True, return_tensors="pt")
    answer = loaded.generate(**ids, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > ids["input_ids"].shape[1]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("other bytes", "not a GGUF file|magic"),
        ("half", r"cannot be read as a causal language model \("),
        ("a weight less", r"1 weights are missing or of another shape, such as .*layers\.1\.mlp\.up_proj"),
        ("another architecture", r"cannot be read as a causal language model \("),
    ],
)
def test_a_file_that_cannot_be_read_is_named(damage: str, told: str, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "bad.gguf"
    if damage == "a weight less":
        write_gguf(path, tiny_llama(), left_out="blk.1.ffn_up.weight")
    elif damage == "another architecture":
        write_gguf(path, tiny_llama(), architecture="clip")
    else:
        write_gguf(path, tiny_llama())
        content = path.read_bytes()
        path.write_bytes(b"PK\x03\x04" + content if damage == "other bytes" else content[: len(content) // 2])
    with pytest.raises(ValueError, match=told) as caught:
        PretrainedPolicy(str(path)).load_tokenizer()
    assert str(path) in str(caught.value)
    assert list(cache.iterdir()) == []
