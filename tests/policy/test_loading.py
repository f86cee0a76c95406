"""Where policies come from, and what is said when they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.engines import GenerationRequest, TransformersEngine
from sgsd_lightning.policy import LoraSettings, PretrainedPolicy, RandomPolicy
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.scoring.attention import row_layout
from sgsd_lightning.scoring.check import check_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import Problem, SamplingSettings, TokenSequence
from tests.support.tiny import tiny_module

MakeModel = Callable[..., PreTrainedModel]
SMALL = {"hidden_size": 32, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 48}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Writes a small model and a tokenizer; gives their folder."""

    def write(tokenizer: PreTrainedTokenizerBase | None = None, **config_changes: object) -> str:
        model = RandomPolicy(**SMALL).load_model()
        for name, value in config_changes.items():
            setattr(model.config, name, value)
        model.save_pretrained(tmp_path)
        (tokenizer or byte_tokenizer()).save_pretrained(tmp_path)
        return str(tmp_path)

    return write


def test_a_random_policy_comes_from_its_seed_alone() -> None:
    first, again, other = (RandomPolicy(**SMALL, seed=seed).load_model() for seed in (3, 3, 4))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_no_other_default_device_reaches_random_weights_and_adapters(lora: LoraSettings | None) -> None:
    """Lightning configures a model under its GPU as the default device; ``meta`` stands for one here."""
    policy = RandomPolicy(**SMALL, dtype="bfloat16", lora=lora)
    expected = policy.load_model()
    with torch.device("meta"):
        found = policy.load_model()
    assert dict(found.named_parameters()).keys() == dict(expected.named_parameters()).keys()
    assert all(map(torch.equal, found.parameters(), expected.parameters()))


@pytest.mark.parametrize("is_allowed", [False, True])
def test_attention_is_not_computed_by_cudnn_unless_that_is_asked_for(is_allowed: bool) -> None:
    seen: list[bool] = []
    was_enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        model = RandomPolicy(**SMALL, gradient_checkpointing=True, cudnn_attention=is_allowed).load_model()
        for layer in model.model.layers:
            layer.self_attn.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
        batch = pack([TokenSequence.causal((1, 2), (3, 4))], row_layout(model.config))
        model.score(batch).logprob.sum().backward()
        num_scored = len(seen)
        request = GenerationRequest(prompt_ids=(1, 2), seed=0)
        TransformersEngine().generate(model, [request], SamplingSettings(max_new_tokens=2))
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_enabled)
    assert num_scored == 2 * len(model.model.layers)  # recomputed in the backward pass
    assert len(seen) > num_scored
    assert set(seen) == {is_allowed}


def test_drawing_random_weights_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    RandomPolicy(**SMALL, lora=LoraSettings(rank=2)).load_model()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_random_policy_fits_its_tokenizer() -> None:
    policy = RandomPolicy(**SMALL, num_layers=3, dtype="bfloat16")
    model, tokenizer = policy.load_model(), policy.load_tokenizer()
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.dtype == torch.bfloat16
    assert len(model.model.layers) == 3


def test_a_pretrained_policy_is_the_saved_one_in_training_mode(save: Callable[..., str]) -> None:
    folder = save()
    model = PretrainedPolicy(folder).load_model()
    assert all(map(torch.equal, model.parameters(), AutoModelForCausalLM.from_pretrained(folder).parameters()))
    assert model.training
    assert model.config._attn_implementation == "sgsd_varlen"
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_dropout_is_off_wherever_the_configuration_puts_it(save: Callable[..., str]) -> None:
    model = PretrainedPolicy(save(attention_dropout=0.5, hidden_dropout=0.2), attention="sdpa").load_model()
    assert model.config.attention_dropout == model.config.hidden_dropout == 0.0
    assert model.model.layers[0].self_attn.attention_dropout == 0.0


def test_checkpointing_and_adapters_are_set_up(save: Callable[..., str]) -> None:
    model = PretrainedPolicy(save(), gradient_checkpointing=True, lora=LoraSettings(rank=2)).load_model()
    assert all(layer.gradient_checkpointing for layer in model.model.layers)
    assert {name.rsplit(".", 3)[1] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_training_all_weights_in_half_precision_is_warned_of(
    save: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    PretrainedPolicy(save(), dtype="bfloat16").load_model()
    assert "rounds small updates away" in caplog.text


def test_padding_falls_back_to_the_end_of_sequence(save: Callable[..., str]) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    loaded = PretrainedPolicy(save(tokenizer)).load_tokenizer()
    assert loaded.pad_token_id == loaded.eos_token_id


def test_a_model_that_is_nowhere_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    policy = PretrainedPolicy(str(tmp_path / "absent"))
    for load in (policy.load_tokenizer, policy.load_model):
        with pytest.raises(ValueError, match=r"absent' is no local folder that holds one and was not found") as info:
            load()
        assert "\n" not in str(info.value)


def test_a_base_model_needs_a_chat_template_of_the_run(save: Callable[..., str], tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    policy = PretrainedPolicy(save(tokenizer))
    with pytest.raises(ValueError, match=r"has no chat template, .* give one as prompts.chat_template") as info:
        tiny_module(policy=policy).learner.load_tokenizer()
    assert "\n" not in str(info.value)
    template = "{% for m in messages %}Q: {{ m.content }}\n{% endfor %}A:"
    (tmp_path / "template.jinja").write_text(template)
    problem = Problem(problem_id="p", text="1 + 1?", answer="2")
    for given in (template, str(tmp_path / "template.jinja")):
        learner = tiny_module(policy=policy, prompts=ChatPrompts("{problem}", chat_template=given)).learner
        learner.load_tokenizer()
        ids = learner.prompts.student(learner.tokenizer, problem)
        assert learner.tokenizer.decode(ids) == "Q: 1 + 1?\nA:"
        assert learner.tokenizer.chat_template == template, "and an exported policy keeps it"
    with pytest.raises(ValueError, match=r"prompts.chat_template must be a Jinja template, or a file .* 'no/file' is"):
        ChatPrompts(chat_template="no/file")


def test_a_tokenizer_without_an_end_of_sequence_is_refused(save: Callable[..., str]) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no end-of-sequence token"):
        PretrainedPolicy(save(tokenizer)).load_tokenizer()


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(save: Callable[..., str]) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["another", "one more"])
    with pytest.raises(ValueError, match="has 263 tokens but the model's vocabulary ends at 261"):
        PretrainedPolicy(save(tokenizer)).load_tokenizer()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 30}, "hidden_size must be a multiple of twice num_heads = 4; got 30"),
        ({"num_kv_heads": 3}, "num_kv_heads must divide num_heads = 4; got 3"),
        ({"dtype": "int8"}, "policy.dtype must be one of float32, bfloat16, float16; got 'int8'"),
    ],
)
def test_impossible_sizes_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomPolicy(**{**SMALL, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["qwen3 tied", "llama", "granite", "cohere", "gemma2"])
@pytest.mark.parametrize("attention", ["sgsd_varlen", "eager"])
def test_known_architectures_pass_the_check_of_their_scores(name: str, attention: str, make_model: MakeModel) -> None:
    check_score(make_model(name, attention))


def test_an_architecture_with_an_unknown_step_before_its_logits_is_refused(make_model: MakeModel) -> None:
    model = make_model()
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    with pytest.raises(ValueError, match="Qwen3ForCausalLM does something between its hidden states and its logits"):
        check_score(model)


def test_an_attention_that_a_model_does_not_have_is_named(save: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"does not load under policy.attention varlen_sgsd") as info:
        PretrainedPolicy(save(), attention="varlen_sgsd").load_model()
    assert "\n" not in str(info.value)
