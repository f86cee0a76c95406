"""The base models of the package: which bytes they are, what they say, and that no other recipe takes them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3ForCausalLM

from sgsd_lightning.toy import base_model, shipped_weights
from sgsd_lightning.toy.base_model import build_base_model
from sgsd_lightning.toy.base_training import new_model, train_base_model
from sgsd_lightning.toy.prompts import STUDENT_TEMPLATE
from sgsd_lightning.toy.recipe import READS_SOLUTIONS, BaseModelSettings, recipe_digest
from sgsd_lightning.toy.ship_weights import ship
from sgsd_lightning.toy.shipped_weights import NotShipped, load_shipped, shipped_file, weights_folder
from sgsd_lightning.toy.tokenizer import toy_tokenizer

FEW_STEPS = BaseModelSettings(num_drill_steps=2, num_chat_steps=2, batch_size=4)
PINNED = {
    "demo-seed-0.safetensors": "eea2f77e3f23d8c0dad64425a30cf6cf50afee08b4e97913e8d0509a677972e5",
    "demo-seed-1.safetensors": "960feedb110d66f19e425db75fdbb727ad9867636a71bf1d1643a92f31812529",
    "demo-seed-2.safetensors": "848f82ed947867862b1e046ef1238868f7b664a581360dc386f55e1bd9c582a3",
    "reads_solutions-seed-0.safetensors": "2f9a68900efdbee886b1845372e8937defff93fbff894e5b992987101a009294",
    "reads_solutions-seed-1.safetensors": "c08a6ed2ec4662798faf02bcd680f082a85cd8a746a1dd3384225dc3998aeaf2",
    "reads_solutions-seed-2.safetensors": "9cae7987416dfd79f282090fdfd9346da3b34d27637ff7efc46b1dad2844643f",
}
"""SHA-256 of every file; new ones belong to new weights, and so to new results in README and benchmarks."""
GREEDY = {
    0: {
        "8 + 9 * 3": "8 + 9 = 7\n7 * 3 = 1\n\\boxed{1}",
        "1 - 4 * 8": "1 - 4 = 7\n7 * 8 = 6\n\\boxed{6}",
        "8 + 4 + 6 * 7": "8 + 4 = 2\n2 + 6 = 8\n8 * 7 = 6\n\\boxed{6}",
    },
    1: {
        "4 + 4 * 7": "4 * 7 = 8\n4 + 8 = 2\n\\boxed{2}",
        "8 + 9 * 3": "8 + 9 = 7\n7 * 3 = 1\n\\boxed{1}",
        "2 + 4 + 2 * 2": "2 * 2 = 4\n2 + 4 = 6\n6 + 4 = 0\n\\boxed{0}",
    },
    2: {
        "7 - 6 * 4": "7 - 6 = 1\n1 * 4 = 4\n\\boxed{4}",
        "3 - 6 * 3 + 1": "3 - 6 = 7\n7 * 3 = 1\n1 + 1 = 2\n\\boxed{2}",
        "5 - 5 * 4 + 4": "5 - 5 = 0\n0 * 4 = 0\n0 + 4 = 4\n\\boxed{4}",
    },
}
"""By seed: what the demo's base model answers where its least certain token is far ahead of the next."""
FILES = [(seed, settings) for settings in (BaseModelSettings(), READS_SOLUTIONS) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer()


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    """What would be trained has random weights."""
    monkeypatch.setattr(
        base_model, "train_base_model", lambda seed, settings, tokenizer: new_model(9, settings, tokenizer)
    )


def refuse(*args: object) -> None:
    raise AssertionError("a base model of the package was trained")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())


def test_the_package_holds_these_files_and_no_others() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in weights_folder().iterdir()}
    assert found == PINNED


@pytest.mark.parametrize(("seed", "settings"), FILES)
def test_a_file_is_of_todays_recipe_and_says_where_it_comes_from(
    seed: int, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = shipped_file(seed, settings, recipe_digest(seed, settings, tokenizer))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["seed"] == str(seed)
    assert metadata["command"] == f"python -m sgsd_lightning.toy.ship_weights --seeds {seed}"
    assert "torch 2." in metadata["machine"]
    assert path.stat().st_size < 300_000


def test_the_files_are_six_models() -> None:
    embeddings = [load_file(path)["model.embed_tokens.weight"] for path in sorted(weights_folder().iterdir())]
    assert all(embedding.dtype == torch.float16 for embedding in embeddings)
    assert not any(torch.equal(a, b) for i, a in enumerate(embeddings) for b in embeddings[:i])


def test_the_built_model_has_the_files_weights_and_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base_model, "train_base_model", refuse)
    built = weights_of(build_base_model(1, tmp_path))
    stored = load_file(weights_folder() / "demo-seed-1.safetensors")
    assert set(built) == set(stored)
    assert all(built[name].dtype == torch.float32 for name in built)
    assert all(torch.equal(built[name], stored[name].float()) for name in stored)
    assert caplog.messages == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_answers_are_the_same_everywhere(seed: int, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_base_model(seed, tmp_path))
    for problem, wanted in GREEDY[seed].items():
        answer, margin = greedy(model, tokenizer, problem)
        assert answer == wanted
        assert margin > 0.5


def greedy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, problem: str) -> tuple[str, float]:
    """The likeliest completion, and by how many nats its least certain token is ahead of the next."""
    chat = [{"role": "user", "content": STUDENT_TEMPLATE.format(problem=problem)}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    found = model.generate(
        **inputs, do_sample=False, max_new_tokens=40, output_logits=True, return_dict_in_generate=True
    )
    best = torch.cat(found.logits).topk(2).values
    text = tokenizer.decode(found.sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text, float((best[:, 0] - best[:, 1]).min())


@pytest.mark.usefixtures("untrained")
def test_another_seed_is_trained_with_one_sentence_that_names_the_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_base_model(7, tmp_path)
    assert build_base_model(7, tmp_path) == folder  # found again, without a word
    (sentence,) = caplog.messages
    assert "seed 7 is not part of the package, which has seeds 0, 1 and 2" in sentence
    assert f"depend on the machine ({base_model.describe_machine()})" in sentence


@pytest.mark.usefixtures("untrained")
def test_weights_of_a_recipe_that_changed_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = build_base_model(0, tmp_path)
    monkeypatch.setattr("sgsd_lightning.toy.corpus.trace", lambda expression, convention=None: f"{expression} = 0")
    after = build_base_model(0, tmp_path)
    assert after != before
    (sentence,) = caplog.messages
    assert "demo-seed-0.safetensors holds a toy base model of another recipe" in sentence
    assert "`python -m sgsd_lightning.toy.ship_weights` makes the file anew" in sentence


def test_the_digest_is_of_seed_settings_texts_and_vocabulary(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BaseModelSettings()
    known = recipe_digest(0, settings, tokenizer)
    assert recipe_digest(0, BaseModelSettings(), toy_tokenizer()) == known
    larger = toy_tokenizer()
    larger.add_tokens(["abacus"])
    others = {
        recipe_digest(1, settings, tokenizer),
        recipe_digest(0, dataclasses.replace(settings, learning_rate=4e-3), tokenizer),
        recipe_digest(0, READS_SOLUTIONS, tokenizer),
        recipe_digest(0, settings, larger),
    }
    monkeypatch.setattr("sgsd_lightning.toy.corpus.STUDENT_TEMPLATE", "Compute {problem}")
    others.add(recipe_digest(0, settings, tokenizer))
    assert len(others - {known}) == 5


def test_settings_of_ones_own_are_not_in_the_package() -> None:
    with pytest.raises(NotShipped, match="settings of its own"):
        shipped_file(0, FEW_STEPS, "any")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", None])
def test_a_damaged_file_is_named(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_weights, "weights_folder", lambda: tmp_path)
    if content is not None:
        (tmp_path / "demo-seed-0.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"demo-seed-0\.safetensors: .* cannot be read .*install the package again"):
        build_base_model(0, tmp_path / "cache")


def test_a_written_file_holds_the_trained_weights_as_float16(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "new" / "demo-seed-3.safetensors"
    ship(path, 3, FEW_STEPS)
    trained = dict(train_base_model(3, FEW_STEPS, tokenizer).named_parameters())
    loaded = dict(load_shipped(path, FEW_STEPS, tokenizer).named_parameters())
    assert all(torch.equal(loaded[name], trained[name].half().float()) for name in trained)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["recipe"] == recipe_digest(3, FEW_STEPS, tokenizer)


def test_a_weight_beyond_float16_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model(0, FEW_STEPS, toy_tokenizer())
    with torch.no_grad():
        model.model.norm.weight[3] = 1e6
    monkeypatch.setattr("sgsd_lightning.toy.ship_weights.train_base_model", lambda *args: model)
    with pytest.raises(ValueError, match=r"model\.norm\.weight: a weight is beyond float16"):
        ship(tmp_path / "demo-seed-0.safetensors", 0, FEW_STEPS)
    assert list(tmp_path.iterdir()) == []
