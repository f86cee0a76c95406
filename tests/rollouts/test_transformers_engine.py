"""Rollouts by transformers: their ids, their log-probabilities, their ends, and that they do not see each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.policy.loading import checkpoint_activations
from sgsd_lightning.rollouts import RolloutRequest, TransformersEngine
from sgsd_lightning.types import FinishReason, Rollout, SamplingSettings

MakeModel = Callable[..., PreTrainedModel]
MakeRequest = Callable[[int, int], RolloutRequest]
LENGTHS = (3, 11, 1, 7, 7, 2)


@pytest.fixture
def requests_(make_request: MakeRequest) -> list[RolloutRequest]:
    return [make_request(length, seed) for seed, length in enumerate(LENGTHS)]


def _own_logprobs(model: PreTrainedModel, rollout: Rollout) -> torch.Tensor:
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits[0, len(rollout.prompt_ids) - 1 : -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa", "eager"])
def test_recorded_logprobs_are_those_of_scoring_the_completion_again(
    attention: str, make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model = make_model(attention)
    sampling = SamplingSettings(max_new_tokens=12, sampling_temperature=1.3, sampling_top_k=20)
    for rollout in TransformersEngine(batch_size=4).generate(model, tokenizer, requests_, sampling):
        rows = _own_logprobs(model, rollout)
        ids = torch.tensor(rollout.completion_ids)[:, None]
        torch.testing.assert_close(rollout.logprobs.double(), rows.gather(-1, ids)[:, 0], atol=1e-5, rtol=0)
        tempered = (rows / 1.3).log_softmax(-1)
        kept = tempered.topk(20).values.logsumexp(-1)
        expected = tempered.gather(-1, ids)[:, 0] - kept
        torch.testing.assert_close(rollout.sampling_logprobs.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(rollout.kept_mass.double(), kept.exp(), atol=1e-5, rtol=0)


def test_rollouts_come_in_the_order_of_their_requests(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    rollouts = TransformersEngine(batch_size=2).generate(
        make_model(), tokenizer, requests_, SamplingSettings(max_new_tokens=2)
    )
    assert [rollout.prompt_ids for rollout in rollouts] == [request.prompt_ids for request in requests_]
    assert [rollout.group_index for rollout in rollouts] == list(range(len(LENGTHS)))
    assert {rollout.logprobs.dtype for rollout in rollouts} == {torch.float32}


@pytest.mark.parametrize("engine", [TransformersEngine(batch_size=1), TransformersEngine(max_batch_tokens=40)])
def test_a_completion_does_not_depend_on_its_batch(
    engine: TransformersEngine,
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerBase,
    requests_: list[RolloutRequest],
) -> None:
    model, sampling = make_model(end_bias=3.0), SamplingSettings(max_new_tokens=16)
    together = TransformersEngine().generate(model, tokenizer, requests_, sampling)
    apart = engine.generate(model, tokenizer, list(reversed(requests_)), sampling)
    for one, other in zip(together, reversed(apart), strict=True):
        assert one.completion_ids == other.completion_ids
        assert one.finish_reason == other.finish_reason
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-5, rtol=0)


def test_the_global_random_state_plays_no_part(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=8)
    outcomes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        rollouts = TransformersEngine().generate(model, tokenizer, requests_, sampling)
        outcomes.append([rollout.completion_ids for rollout in rollouts])
        assert torch.equal(torch.get_rng_state(), before)
    assert outcomes[0] == outcomes[1]


def test_different_seeds_give_different_completions_and_longer_ones_begin_alike(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model()
    prompt = make_request(5, 0).prompt_ids
    requests = [RolloutRequest(problem=make_request(5, 0).problem, prompt_ids=prompt, seed=s) for s in range(8)]
    short, long = (
        TransformersEngine().generate(model, tokenizer, requests, SamplingSettings(max_new_tokens=count))
        for count in (6, 20)
    )
    assert len({rollout.completion_ids for rollout in short}) == 8
    assert [r.completion_ids for r in short] == [r.completion_ids[:6] for r in long]


def test_first_tokens_are_distributed_as_the_model_says(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model, request = make_model(), make_request(4, 0)
    num_samples, top_k = 4000, 6
    requests = [
        RolloutRequest(problem=request.problem, prompt_ids=request.prompt_ids, seed=seed) for seed in range(num_samples)
    ]
    sampling = SamplingSettings(max_new_tokens=1, sampling_temperature=2.0, sampling_top_k=top_k)
    rollouts = TransformersEngine(batch_size=num_samples).generate(model, tokenizer, requests, sampling)
    counts = torch.tensor([rollout.completion_ids[0] for rollout in rollouts]).bincount(minlength=len(tokenizer))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([request.prompt_ids])).logits[0, -1] / 2.0
    values, ids = logits.topk(top_k)
    expected = values.softmax(-1) * num_samples
    assert counts.sum() == counts[ids].sum()
    chi_square = ((counts[ids] - expected) ** 2 / expected).sum().item()
    # the 0.1 % quantile from above of chi-square with 5 degrees of freedom
    assert chi_square < 20.5


def test_a_completion_ends_with_the_end_of_sequence_or_is_truncated(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    requests = [make_request(4, seed) for seed in range(24)]
    rollouts = TransformersEngine().generate(
        make_model(end_bias=4.0), tokenizer, requests, SamplingSettings(max_new_tokens=10)
    )
    end = tokenizer.eos_token_id
    for rollout in rollouts:
        assert end not in rollout.completion_ids[:-1]
        is_stopped = rollout.completion_ids[-1] == end
        assert rollout.finish_reason == (FinishReason.STOPPED if is_stopped else FinishReason.TRUNCATED)
        assert is_stopped or len(rollout.completion_ids) == 10
        assert len(rollout.completion_ids) == len(rollout.logprobs) == len(rollout.kept_mass)
        assert "<|im_end|>" not in rollout.completion_text
    assert {rollout.finish_reason for rollout in rollouts} == set(FinishReason)


def test_generation_stops_when_every_row_has(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model = make_model(end_bias=100.0)
    num_forwards: list[int] = []
    model.model.register_forward_hook(lambda *arguments: num_forwards.append(1))
    rollouts = TransformersEngine().generate(model, tokenizer, requests_, SamplingSettings(max_new_tokens=40))
    assert [rollout.completion_ids for rollout in rollouts] == [(tokenizer.eos_token_id,)] * len(LENGTHS)
    assert len(num_forwards) == 1


def test_end_of_sequence_tokens_of_the_models_generation_settings_end_completions_too(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=12, sampling_temperature=0)
    plain = TransformersEngine().generate(model, tokenizer, requests_[:1], sampling)[0]
    second = plain.completion_ids[1]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, second]
    stopped = TransformersEngine().generate(model, tokenizer, requests_[:1], sampling)[0]
    assert stopped.completion_ids == plain.completion_ids[: plain.completion_ids.index(second) + 1]
    assert stopped.finish_reason is FinishReason.STOPPED


def test_temperature_zero_is_transformers_greedy_search(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model = make_model()
    sampling = SamplingSettings(max_new_tokens=10, sampling_temperature=0)
    for request, rollout in zip(
        requests_, TransformersEngine().generate(model, tokenizer, requests_, sampling), strict=True
    ):
        expected = model.generate(
            torch.tensor([request.prompt_ids]),
            attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.int64),
            max_new_tokens=10,
            do_sample=False,
        )
        assert list(rollout.completion_ids) == expected[0, len(request.prompt_ids) :].tolist()
        assert not rollout.sampling_logprobs.any()
        assert (rollout.kept_mass == 1).all()


def test_what_a_model_ships_with_does_not_reach_the_sampler_and_is_kept(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=12)
    plain = TransformersEngine().generate(model, tokenizer, requests_, sampling)
    shipped = GenerationConfig(
        do_sample=True, top_k=1, temperature=0.1, repetition_penalty=5.0, no_repeat_ngram_size=1, max_new_tokens=3
    )
    model.generation_config = shipped
    again = TransformersEngine().generate(model, tokenizer, requests_, sampling)
    assert [r.completion_ids for r in again] == [r.completion_ids for r in plain]
    assert model.generation_config is shipped


def test_training_mode_and_gradient_checkpointing_change_nothing_and_come_back(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=8)
    expected = TransformersEngine().generate(model, tokenizer, requests_, sampling)
    checkpoint_activations(model)
    model.train()
    model.model.layers[0].eval()
    actual = TransformersEngine().generate(model, tokenizer, requests_, sampling)
    assert [r.completion_ids for r in actual] == [r.completion_ids for r in expected]
    assert model.training
    assert model.model.layers[1].mlp.training
    assert not model.model.layers[0].training


def test_the_text_is_the_ids_without_special_tokens(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    rollouts = TransformersEngine().generate(make_model(), tokenizer, requests_, SamplingSettings(max_new_tokens=8))
    for rollout in rollouts:
        kept = [token_id for token_id in rollout.completion_ids if token_id not in tokenizer.all_special_ids]
        assert rollout.completion_text == tokenizer.decode(kept)


def test_no_requests_give_no_rollouts(make_model: MakeModel, tokenizer: PreTrainedTokenizerBase) -> None:
    assert TransformersEngine().generate(make_model(), tokenizer, [], SamplingSettings()) == []


def test_an_empty_prompt_is_refused(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    with pytest.raises(ValueError, match="the prompt of problem 'p' has no tokens"):
        TransformersEngine().generate(make_model(), tokenizer, [make_request(0, 0)], SamplingSettings())


def test_a_prompt_without_room_for_its_completion_is_refused(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    with pytest.raises(ValueError, match=r"\(10 tokens\) and sampling.max_new_tokens = 55 exceed the model's 64"):
        TransformersEngine().generate(
            make_model(), tokenizer, [make_request(10, 0)], SamplingSettings(max_new_tokens=55)
        )


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rollouts\.batch_size must be at least 1; got 0"):
        TransformersEngine(batch_size=0)


def _forwards(model: PreTrainedModel) -> list[tuple[int, int, int]]:
    """Filled while the model runs: rows, new tokens a row, and width of the cache after each forward pass."""
    found: list[tuple[int, int, int]] = []

    def note(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        found.append((*inputs["input_ids"].shape, inputs["attention_mask"].shape[1]))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return found


def test_batches_stay_within_their_rows_and_tokens(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model()
    forwards = _forwards(model)
    requests = [make_request(length, seed) for seed, length in enumerate((3, 11, 1, 7, 7, 2, 56))]
    engine = TransformersEngine(batch_size=3, max_batch_tokens=40)
    engine.generate(model, tokenizer, requests, SamplingSettings(max_new_tokens=8))
    # prompts of 56 (too long for any batch) | 11 7 | 7 3 2 | 1 with 8 new tokens: 64, 2 * 19, 2 * 15 (a third
    # would make 45), 2 * 11 beside what is left of those before
    assert max(rows for rows, _, width in forwards if width > 19) == 1
    assert all(rows <= 3 and rows * width <= 40 for rows, _, width in forwards if width <= 19)
    assert {rows for rows, _, _ in forwards} >= {1, 2}


def test_rows_that_stop_leave_the_batch(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model(end_bias=4.0)
    forwards = _forwards(model)
    requests = [make_request(4, seed) for seed in range(16)]
    rollouts = TransformersEngine().generate(model, tokenizer, requests, SamplingSettings(max_new_tokens=20))
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    assert len(set(lengths)) > 3
    # the first pass is over prompts and gives the first token
    assert [rows for rows, _, _ in forwards] == [
        sum(length > step for length in lengths) for step in range(max(lengths))
    ]


def test_padding_goes_with_the_row_that_it_was_for(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model()
    forwards = _forwards(model)
    requests = [make_request(30, 0), make_request(4, 1)]
    sampling = SamplingSettings(max_new_tokens=12, sampling_temperature=0)
    plain = TransformersEngine().generate(model, tokenizer, requests, sampling)
    stop = plain[0].completion_ids[1]
    assert stop not in plain[1].completion_ids
    forwards.clear()
    model.generation_config.eos_token_id = stop
    again = TransformersEngine().generate(model, tokenizer, requests, sampling)
    assert len(again[0].completion_ids) == 2
    assert again[1].completion_ids == plain[1].completion_ids
    assert [width for _, _, width in forwards] == [30, 31, *range(6, 16)][: len(forwards)]


def test_waiting_requests_take_the_places_of_rows_that_have_stopped(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model(end_bias=4.0)
    forwards = _forwards(model)
    requests = [make_request(3 + seed % 5, seed) for seed in range(40)]
    engine = TransformersEngine(batch_size=8)
    rollouts = engine.generate(model, tokenizer, requests, SamplingSettings(max_new_tokens=30))
    num_decoding = sum(new_tokens == 1 for _, new_tokens, _ in forwards)
    longest_first = sorted(rollouts, key=lambda rollout: -len(rollout.prompt_ids))
    lengths = [len(rollout.completion_ids) for rollout in longest_first]
    assert max(rows for rows, _, _ in forwards) == 8
    one_batch_after_another = sum(max(lengths[start : start + 8]) - 1 for start in range(0, 40, 8))
    assert num_decoding < 0.8 * one_batch_after_another


def test_a_prompt_that_rows_share_is_computed_once(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model()
    forwards = _forwards(model)
    prompts = [make_request(9, 0).prompt_ids, make_request(5, 1).prompt_ids]
    requests = [
        RolloutRequest(problem=make_request(1, 0).problem, prompt_ids=prompts[seed % 2], seed=seed) for seed in range(6)
    ]
    sampling = SamplingSettings(max_new_tokens=6)
    together = TransformersEngine().generate(model, tokenizer, requests, sampling)
    assert [rows for rows, _, _ in forwards] == [2, 6, 6, 6, 6, 6][: len(forwards)]
    for request, rollout in zip(requests, together, strict=True):
        alone = TransformersEngine().generate(model, tokenizer, [request], sampling)[0]
        assert alone.completion_ids == rollout.completion_ids


def test_a_cache_that_is_no_plain_list_of_keys_and_values_is_decoded_a_batch_at_a_time(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model = make_model(end_bias=4.0)
    model.config.layer_types = ["sliding_attention", "full_attention"]
    model.config.sliding_window = model.model.config.sliding_window = 6
    model.model.has_sliding_layers = True
    layer = model.model.layers[0]
    layer.attention_type = layer.self_attn.layer_type = "sliding_attention"
    layer.self_attn.sliding_window = 6
    cache = model(torch.zeros(1, 9, dtype=torch.int64), use_cache=True).past_key_values
    assert cache.layers[0].keys.shape[-2] < 9, "the test is about caches that forget"
    requests = [make_request(3 + 3 * (seed % 3), seed) for seed in range(12)]
    sampling = SamplingSettings(max_new_tokens=14)
    together = TransformersEngine(batch_size=5).generate(model, tokenizer, requests, sampling)
    for request, rollout in zip(requests, together, strict=True):
        rows = _own_logprobs(model, rollout)
        ids = torch.tensor(rollout.completion_ids)[:, None]
        torch.testing.assert_close(rollout.logprobs.double(), rows.gather(-1, ids)[:, 0], atol=1e-5, rtol=0)
        alone = TransformersEngine().generate(model, tokenizer, [request], sampling)[0]
        assert alone.completion_ids == rollout.completion_ids


def test_rollouts_carry_the_version_of_the_weights(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    engine, sampling = TransformersEngine(), SamplingSettings(max_new_tokens=2)
    rollouts = engine.generate(make_model(), tokenizer, requests_, sampling, weights_version=17)
    assert {rollout.weights_version for rollout in rollouts} == {17}


def test_a_change_of_the_weights_is_seen_at_once(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model, engine, sampling = make_model(), TransformersEngine(), SamplingSettings(max_new_tokens=6)
    before = engine.generate(model, tokenizer, requests_, sampling)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = engine.generate(model, tokenizer, requests_, sampling, weights_version=1)
    assert [rollout.completion_ids for rollout in before] != [rollout.completion_ids for rollout in after]
    for rollout in after:
        ids = torch.tensor(rollout.completion_ids)[:, None]
        expected = _own_logprobs(model, rollout).gather(-1, ids)[:, 0]
        torch.testing.assert_close(rollout.logprobs.double(), expected, atol=1e-5, rtol=0)


def test_a_model_without_a_key_value_cache_is_refused(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[RolloutRequest]
) -> None:
    model = make_model()
    model.register_forward_hook(lambda _, __, output: setattr(output, "past_key_values", None))
    with pytest.raises(ValueError, match="Qwen3ForCausalLM gives no past_key_values"):
        TransformersEngine().generate(model, tokenizer, requests_, SamplingSettings(max_new_tokens=2))
