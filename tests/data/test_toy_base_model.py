"""The base model: what it reads, that it is cached and repeats with its seed; the slow test asks the real one."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from sgsd_lightning.toy.bank import load_toy_bank
from sgsd_lightning.toy.base_model import CACHE_VARIABLE, build_base_model
from sgsd_lightning.toy.base_training import completion_loss
from sgsd_lightning.toy.corpus import Belief, Corpus, CorpusSettings
from sgsd_lightning.toy.muon import orthogonalised
from sgsd_lightning.toy.problems import ALL_CONVENTIONS, TRUTH, Problem, toy_problems, trace
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE
from sgsd_lightning.toy.recipe import BaseModelSettings
from sgsd_lightning.toy.tokenizer import toy_tokenizer

FEW_STEPS = BaseModelSettings(num_drill_steps=2, num_chat_steps=2, batch_size=4)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


def test_belief_moves_between_its_three_probabilities() -> None:
    belief = Belief(prior=0.4, helpful=0.85, misleading=0.12)
    assert [belief.probability(d) for d in (-1, 0, 1)] == pytest.approx([0.12, 0.4, 0.85])
    assert 0.12 < belief.probability(-0.5) < 0.4 < belief.probability(0.5) < 0.85


@pytest.mark.parametrize("is_drill", [True, False])
def test_an_example_is_a_trace_that_ends_the_turn(tokenizer: PreTrainedTokenizerFast, is_drill: bool) -> None:
    corpus = Corpus(CorpusSettings(), tokenizer, random.Random(0))
    for _ in range(8):
        for prompt, completion in corpus.examples(4, is_drill):
            expression = prompt.split("<|im_end|>")[0].split("\n")[-1]
            assert completion in {trace(expression, c) + "<|im_end|>" for c in ALL_CONVENTIONS}


def test_guidance_shifts_how_often_traces_tell_the_truth(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = Corpus(CorpusSettings(guided_frac=1.0, mixed_pair_frac=0.0), tokenizer, random.Random(0))
    truths, totals = Counter[str](), Counter[str]()
    kinds = {skill["principle"]: skill["toy_truth"] for skill in load_toy_bank()["general_skills"]}
    for prompt, completion in corpus.examples(4000):
        kind = next(truth for principle, truth in kinds.items() if principle in prompt)
        totals[kind] += 1
        truths[kind] += completion == trace(prompt.split("<|im_end|>")[0].split("\n")[-1], TRUTH) + "<|im_end|>"
    rates = {kind: truths[kind] / totals[kind] for kind in totals}
    assert rates["misleading"] + 0.1 < rates["irrelevant"] < rates["helpful"] - 0.1


def test_only_completion_tokens_are_trained_and_padding_is_not_seen(tokenizer: PreTrainedTokenizerFast) -> None:
    folderless = Corpus(CorpusSettings(), tokenizer, random.Random(0))
    batch = folderless.batch(6)
    for row, mask in zip(batch.input_ids, batch.is_completion, strict=True):
        trained = tokenizer.decode(row[mask])
        assert trained.endswith("}<|im_end|>")
        assert "assistant" not in trained


def test_the_loss_of_a_padded_batch_is_that_of_its_rows(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_base_model(0, tmp_path, FEW_STEPS)).double()
    batch = Corpus(CorpusSettings(), tokenizer, random.Random(1)).batch(5)
    total, count = 0.0, 0
    for row, mask in zip(batch.input_ids, batch.is_completion, strict=True):
        start, end = int(mask.nonzero()[0]), int(mask.nonzero()[-1]) + 1
        logprobs = model(input_ids=row[None, :end]).logits[0].log_softmax(-1)
        total -= sum(logprobs[t - 1, row[t]].item() for t in range(start, end))
        count += end - start
    assert completion_loss(model, batch).item() == pytest.approx(total / count, rel=1e-9)


def test_the_same_seed_gives_identical_weights_and_another_does_not(tmp_path: Path) -> None:
    first = weights_of(build_base_model(0, tmp_path / "a", FEW_STEPS))
    again = weights_of(build_base_model(0, tmp_path / "b", FEW_STEPS))
    other = weights_of(build_base_model(1, tmp_path / "a", FEW_STEPS))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    build_base_model(0, tmp_path, FEW_STEPS)
    assert torch.equal(torch.rand(1), expected)


def test_a_second_call_finds_the_model_without_training(tmp_path: Path) -> None:
    folder = build_base_model(0, tmp_path, FEW_STEPS)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert build_base_model(0, tmp_path, FEW_STEPS) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [path for path in tmp_path.iterdir() if path != folder] == []


def test_the_recipe_decides_the_folder_and_the_environment_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder = build_base_model(0, settings=FEW_STEPS)
    longer = BaseModelSettings(num_drill_steps=3, num_chat_steps=2, batch_size=4)
    assert folder.parent == tmp_path
    assert build_base_model(0, settings=longer) != folder


def test_an_unfinished_folder_does_not_count_as_cached(tmp_path: Path) -> None:
    folder = build_base_model(0, tmp_path, FEW_STEPS)
    for path in folder.iterdir():
        path.unlink()
    assert build_base_model(0, tmp_path, FEW_STEPS) == folder
    assert weights_of(folder)


def test_the_folder_is_a_small_tied_qwen3_with_its_tokenizer(tmp_path: Path) -> None:
    folder = build_base_model(0, tmp_path, FEW_STEPS)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.num_parameters() < 1_000_000
    assert len(tokenizer) == model.config.vocab_size
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5), (1, 4)])
def test_muon_orthogonalises_any_matrix(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    update = orthogonalised(matrix)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    singular_values = torch.linalg.svdvals(update)
    assert update.shape == matrix.shape
    assert 0.4 < singular_values.min() <= singular_values.max() < 1.3
    core = u.T @ update @ vh.T
    torch.testing.assert_close(core, torch.diag(core.diagonal()), atol=1e-9, rtol=0)


def accuracy(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], answers: list[str]
) -> float:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    sampled = model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=40)
    texts = tokenizer.batch_decode(sampled[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [text.endswith(f"\\boxed{{{answer}}}") for text, answer in zip(texts, answers, strict=True)]
    return sum(right) / len(right)


@pytest.mark.slow
def test_the_real_base_model_is_middling_and_swayed_by_guidance(tmp_path: Path) -> None:
    folder = build_base_model(0, tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    problems = toy_problems("test", 200) * 2
    bank = load_toy_bank()

    def render(problem: Problem, context: str | None) -> str:
        content = STUDENT_TEMPLATE.format(problem=problem.text)
        if context is not None:
            content = TEACHER_TEMPLATE.format(context=context, problem=problem.text)
        chat = [{"role": "user", "content": content}]
        return str(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        )

    def accuracy_with(context: str | None) -> float:
        prompts = [render(problem, context) for problem in problems]
        return accuracy(model, tokenizer, prompts, [problem.answer for problem in problems])

    plain = accuracy_with(None)
    assert 0.25 < plain < 0.6
    for skill, mistake in zip(bank["general_skills"], bank["common_mistakes"], strict=True):
        if skill["toy_subject"] == "precedence":
            guided = accuracy_with(PAIR_TEMPLATE.format_map({**skill, **mistake}))
            assert guided > plain + 0.1 if skill["toy_truth"] == "helpful" else guided < plain - 0.1
        elif skill["toy_truth"] == "irrelevant":
            assert accuracy_with(PAIR_TEMPLATE.format_map({**skill, **mistake})) == pytest.approx(plain, abs=0.2)
