"""Completions by transformers: their ids, their log-probabilities, their ends, and that they do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from inspect import signature

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.engines import GenerationRequest, TransformersEngine, check_freshness, end_of_sequence_ids
from sgsd_lightning.policy.loading import checkpoint_activations
from sgsd_lightning.types import Completion, FinishReason, SamplingSettings

MakeModel = Callable[..., PreTrainedModel]
MakeRequest = Callable[[int, int], GenerationRequest]
LENGTHS = (3, 11, 1, 7, 7, 2)


@pytest.fixture
def requests_(make_request: MakeRequest) -> list[GenerationRequest]:
    return [make_request(length, seed) for seed, length in enumerate(LENGTHS)]


def _own_logprobs(model: PreTrainedModel, request: GenerationRequest, completion: Completion) -> torch.Tensor:
    ids = torch.tensor([[*request.prompt_ids, *completion.ids]])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits[0, len(request.prompt_ids) - 1 : -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("attention", ["sgsd_varlen", "sdpa", "eager"])
def test_recorded_logprobs_are_those_of_scoring_the_completion_again(
    attention: str, make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model = make_model(attention)
    sampling = SamplingSettings(max_new_tokens=12, sampling_temperature=1.3, sampling_top_k=20)
    completions = TransformersEngine(batch_size=4).generate(model, requests_, sampling)
    for request, completion in zip(requests_, completions, strict=True):
        rows = _own_logprobs(model, request, completion)
        ids = torch.tensor(completion.ids)[:, None]
        torch.testing.assert_close(completion.logprobs.double(), rows.gather(-1, ids)[:, 0], atol=1e-5, rtol=0)
        tempered = (rows / 1.3).log_softmax(-1)
        kept = tempered.topk(20).values.logsumexp(-1)
        expected = tempered.gather(-1, ids)[:, 0] - kept
        torch.testing.assert_close(completion.sampling_logprobs.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(completion.kept_mass.double(), kept.exp(), atol=1e-5, rtol=0)


def test_completions_come_in_the_order_of_their_requests(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=2)
    completions = TransformersEngine(batch_size=2).generate(model, requests_, sampling)
    alone = [TransformersEngine().generate(model, [request], sampling)[0] for request in requests_]
    assert [completion.ids for completion in completions] == [completion.ids for completion in alone]
    assert len({completion.ids for completion in completions}) == len(LENGTHS)
    assert {completion.logprobs.dtype for completion in completions} == {torch.float32}


@pytest.mark.parametrize("engine", [TransformersEngine(batch_size=1), TransformersEngine(max_batch_tokens=40)])
def test_a_completion_does_not_depend_on_its_batch(
    engine: TransformersEngine,
    make_model: MakeModel,
    requests_: list[GenerationRequest],
) -> None:
    model, sampling = make_model(end_bias=3.0), SamplingSettings(max_new_tokens=16)
    together = TransformersEngine().generate(model, requests_, sampling)
    apart = engine.generate(model, list(reversed(requests_)), sampling)
    for one, other in zip(together, reversed(apart), strict=True):
        assert one.ids == other.ids
        assert one.finish_reason == other.finish_reason
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-5, rtol=0)


def test_the_global_random_state_plays_no_part(make_model: MakeModel, requests_: list[GenerationRequest]) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=8)
    outcomes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        completions = TransformersEngine().generate(model, requests_, sampling)
        outcomes.append([completion.ids for completion in completions])
        assert torch.equal(torch.get_rng_state(), before)
    assert outcomes[0] == outcomes[1]


def test_different_seeds_give_different_completions_and_longer_ones_begin_alike(
    make_model: MakeModel, make_request: MakeRequest
) -> None:
    model = make_model()
    requests = [replace(make_request(5, 0), seed=seed) for seed in range(8)]
    short, long = (
        TransformersEngine().generate(model, requests, SamplingSettings(max_new_tokens=count)) for count in (6, 20)
    )
    assert len({completion.ids for completion in short}) == 8
    assert [r.ids for r in short] == [r.ids[:6] for r in long]


def test_first_tokens_are_distributed_as_the_model_says(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, make_request: MakeRequest
) -> None:
    model, request = make_model(), make_request(4, 0)
    num_samples, top_k = 4000, 6
    requests = [replace(request, seed=seed) for seed in range(num_samples)]
    sampling = SamplingSettings(max_new_tokens=1, sampling_temperature=2.0, sampling_top_k=top_k)
    completions = TransformersEngine(batch_size=num_samples).generate(model, requests, sampling)
    counts = torch.tensor([completion.ids[0] for completion in completions]).bincount(minlength=len(tokenizer))
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
    completions = TransformersEngine().generate(make_model(end_bias=4.0), requests, SamplingSettings(max_new_tokens=10))
    end = tokenizer.eos_token_id
    for completion in completions:
        assert end not in completion.ids[:-1]
        is_stopped = completion.ids[-1] == end
        assert completion.finish_reason == (FinishReason.STOPPED if is_stopped else FinishReason.TRUNCATED)
        assert is_stopped or len(completion.ids) == 10
        assert len(completion.ids) == len(completion.logprobs) == len(completion.kept_mass)
    assert {completion.finish_reason for completion in completions} == set(FinishReason)


def test_generation_stops_when_every_row_has(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[GenerationRequest]
) -> None:
    model = make_model(end_bias=100.0)
    num_forwards: list[int] = []
    model.model.register_forward_hook(lambda *arguments: num_forwards.append(1))
    completions = TransformersEngine().generate(model, requests_, SamplingSettings(max_new_tokens=40))
    assert [completion.ids for completion in completions] == [(tokenizer.eos_token_id,)] * len(LENGTHS)
    assert len(num_forwards) == 1


def test_end_of_sequence_tokens_of_the_models_generation_settings_end_completions_too(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerBase, requests_: list[GenerationRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=12, sampling_temperature=0)
    plain = TransformersEngine().generate(model, requests_[:1], sampling)[0]
    second = plain.ids[1]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, second]
    stop_ids = end_of_sequence_ids(model, tokenizer)
    assert set(stop_ids) == {tokenizer.eos_token_id, second}
    (stopped,) = TransformersEngine().generate(model, [replace(requests_[0], stop_ids=stop_ids)], sampling)
    assert stopped.ids == plain.ids[: plain.ids.index(second) + 1]
    assert stopped.finish_reason is FinishReason.STOPPED


def test_temperature_zero_is_transformers_greedy_search(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model = make_model()
    sampling = SamplingSettings(max_new_tokens=10, sampling_temperature=0)
    for request, completion in zip(requests_, TransformersEngine().generate(model, requests_, sampling), strict=True):
        expected = model.generate(
            torch.tensor([request.prompt_ids]),
            attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.int64),
            max_new_tokens=10,
            do_sample=False,
        )
        assert list(completion.ids) == expected[0, len(request.prompt_ids) :].tolist()
        assert not completion.sampling_logprobs.any()
        assert (completion.kept_mass == 1).all()


def test_what_a_model_ships_with_does_not_reach_the_sampler_and_is_kept(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=12)
    plain = TransformersEngine().generate(model, requests_, sampling)
    shipped = GenerationConfig(
        do_sample=True, top_k=1, temperature=0.1, repetition_penalty=5.0, no_repeat_ngram_size=1, max_new_tokens=3
    )
    model.generation_config = shipped
    again = TransformersEngine().generate(model, requests_, sampling)
    assert [r.ids for r in again] == [r.ids for r in plain]
    assert model.generation_config is shipped


def test_training_mode_and_gradient_checkpointing_change_nothing_and_come_back(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=8)
    expected = TransformersEngine().generate(model, requests_, sampling)
    checkpoint_activations(model)
    model.train()
    model.model.layers[0].eval()
    actual = TransformersEngine().generate(model, requests_, sampling)
    assert [r.ids for r in actual] == [r.ids for r in expected]
    assert model.training
    assert model.model.layers[1].mlp.training
    assert not model.model.layers[0].training


def test_no_requests_give_no_completions(make_model: MakeModel) -> None:
    assert TransformersEngine().generate(make_model(), [], SamplingSettings()) == []


def test_an_empty_prompt_is_refused(make_model: MakeModel, make_request: MakeRequest) -> None:
    with pytest.raises(ValueError, match="the prompt of request 0 has no tokens"):
        TransformersEngine().generate(make_model(), [make_request(0, 0)], SamplingSettings())


def test_a_prompt_without_room_for_its_completion_is_refused(make_model: MakeModel, make_request: MakeRequest) -> None:
    with pytest.raises(ValueError, match=r"\(10 tokens\) and sampling.max_new_tokens = 55 exceed the model's 64"):
        TransformersEngine().generate(make_model(), [make_request(10, 0)], SamplingSettings(max_new_tokens=55))


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"engine\.batch_size must be at least 1; got 0"):
        TransformersEngine(batch_size=0)


def _forwards(model: PreTrainedModel) -> list[tuple[int, int, int]]:
    """Filled while the model runs: rows, new tokens a row, and width of the cache after each forward pass."""
    found: list[tuple[int, int, int]] = []

    def note(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        found.append((*inputs["input_ids"].shape, inputs["attention_mask"].shape[1]))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return found


def test_batches_stay_within_their_rows_and_tokens(make_model: MakeModel, make_request: MakeRequest) -> None:
    model = make_model()
    forwards = _forwards(model)
    requests = [make_request(length, seed) for seed, length in enumerate((3, 11, 1, 7, 7, 2, 56))]
    engine = TransformersEngine(batch_size=3, max_batch_tokens=40)
    engine.generate(model, requests, SamplingSettings(max_new_tokens=8))
    # prompts of 56 (too long for any batch) | 11 7 | 7 3 2 | 1 with 8 new tokens: 64, 2 * 19, 2 * 15 (a third
    # would make 45), 2 * 11 beside what is left of those before
    assert max(rows for rows, _, width in forwards if width > 19) == 1
    assert all(rows <= 3 and rows * width <= 40 for rows, _, width in forwards if width <= 19)
    assert {rows for rows, _, _ in forwards} >= {1, 2}


def test_rows_that_stop_leave_the_batch(make_model: MakeModel, make_request: MakeRequest) -> None:
    model = make_model(end_bias=4.0)
    forwards = _forwards(model)
    requests = [make_request(4, seed) for seed in range(16)]
    completions = TransformersEngine().generate(model, requests, SamplingSettings(max_new_tokens=20))
    lengths = [len(completion.ids) for completion in completions]
    assert len(set(lengths)) > 3
    # the first pass is over prompts and gives the first token
    assert [rows for rows, _, _ in forwards] == [
        sum(length > step for length in lengths) for step in range(max(lengths))
    ]


def test_padding_goes_with_the_row_that_it_was_for(make_model: MakeModel, make_request: MakeRequest) -> None:
    model = make_model()
    forwards = _forwards(model)
    requests = [make_request(30, 0), make_request(4, 1)]
    sampling = SamplingSettings(max_new_tokens=12, sampling_temperature=0)
    plain = TransformersEngine().generate(model, requests, sampling)
    stop = plain[0].ids[1]
    assert stop not in plain[1].ids
    forwards.clear()
    requests = [replace(request, stop_ids=(stop,)) for request in requests]
    again = TransformersEngine().generate(model, requests, sampling)
    assert len(again[0].ids) == 2
    assert again[1].ids == plain[1].ids
    assert [width for _, _, width in forwards] == [30, 31, *range(6, 16)][: len(forwards)]


def test_waiting_requests_take_the_places_of_rows_that_have_stopped(
    make_model: MakeModel, make_request: MakeRequest
) -> None:
    model = make_model(end_bias=4.0)
    forwards = _forwards(model)
    requests = [make_request(3 + seed % 5, seed) for seed in range(40)]
    engine = TransformersEngine(batch_size=8)
    completions = engine.generate(model, requests, SamplingSettings(max_new_tokens=30))
    num_decoding = sum(new_tokens == 1 for _, new_tokens, _ in forwards)
    pairs = zip(requests, completions, strict=True)
    longest_first = sorted(pairs, key=lambda pair: -len(pair[0].prompt_ids))
    lengths = [len(completion.ids) for _, completion in longest_first]
    assert max(rows for rows, _, _ in forwards) == 8
    one_batch_after_another = sum(max(lengths[start : start + 8]) - 1 for start in range(0, 40, 8))
    assert num_decoding < 0.8 * one_batch_after_another


def test_a_prompt_that_rows_share_is_computed_once(make_model: MakeModel, make_request: MakeRequest) -> None:
    model = make_model()
    forwards = _forwards(model)
    prompts = [make_request(9, 0).prompt_ids, make_request(5, 1).prompt_ids]
    requests = [replace(make_request(1, 0), prompt_ids=prompts[seed % 2], seed=seed) for seed in range(6)]
    sampling = SamplingSettings(max_new_tokens=6)
    together = TransformersEngine().generate(model, requests, sampling)
    assert [rows for rows, _, _ in forwards] == [2, 6, 6, 6, 6, 6][: len(forwards)]
    for request, completion in zip(requests, together, strict=True):
        alone = TransformersEngine().generate(model, [request], sampling)[0]
        assert alone.ids == completion.ids


def test_a_cache_that_is_no_plain_list_of_keys_and_values_is_decoded_a_batch_at_a_time(
    make_model: MakeModel, make_request: MakeRequest
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
    together = TransformersEngine(batch_size=5).generate(model, requests, sampling)
    for request, completion in zip(requests, together, strict=True):
        rows = _own_logprobs(model, request, completion)
        ids = torch.tensor(completion.ids)[:, None]
        torch.testing.assert_close(completion.logprobs.double(), rows.gather(-1, ids)[:, 0], atol=1e-5, rtol=0)
        alone = TransformersEngine().generate(model, [request], sampling)[0]
        assert alone.ids == completion.ids


def test_completions_carry_the_version_of_the_weights(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    engine, sampling = TransformersEngine(), SamplingSettings(max_new_tokens=2)
    model = make_model()
    engine.sync(model, 17)
    completions = engine.generate(model, requests_, sampling)
    assert {completion.policy_version for completion in completions} == {17}


def test_a_change_of_the_weights_is_seen_at_once(make_model: MakeModel, requests_: list[GenerationRequest]) -> None:
    model, engine, sampling = make_model(), TransformersEngine(), SamplingSettings(max_new_tokens=6)
    before = engine.generate(model, requests_, sampling)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.sync(model, 1)
    after = engine.generate(model, requests_, sampling)
    assert [completion.ids for completion in before] != [completion.ids for completion in after]
    for request, completion in zip(requests_, after, strict=True):
        ids = torch.tensor(completion.ids)[:, None]
        expected = _own_logprobs(model, request, completion).gather(-1, ids)[:, 0]
        torch.testing.assert_close(completion.logprobs.double(), expected, atol=1e-5, rtol=0)


def test_a_model_without_a_key_value_cache_is_refused(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model = make_model()
    model.register_forward_hook(lambda _, __, output: setattr(output, "past_key_values", None))
    with pytest.raises(ValueError, match="Qwen3ForCausalLM gives no past_key_values"):
        TransformersEngine().generate(model, requests_, SamplingSettings(max_new_tokens=2))


def test_a_paused_completion_goes_on_as_if_it_had_been_sampled_at_once(
    make_model: MakeModel, make_request: MakeRequest
) -> None:
    model = make_model(end_bias=2.0)
    requests = [make_request(5, seed) for seed in range(8)]
    settings = {"sampling_temperature": 1.3, "sampling_top_k": 40}
    at_once = TransformersEngine().generate(model, requests, SamplingSettings(max_new_tokens=14, **settings))
    first = TransformersEngine().generate(model, requests, SamplingSettings(max_new_tokens=5, **settings))
    going = [place for place, part in enumerate(first) if part.finish_reason is FinishReason.TRUNCATED]
    assert 3 <= len(going) <= 7
    continued = [
        replace(requests[place], prompt_ids=(*requests[place].prompt_ids, *first[place].ids), first_uniform=5)
        for place in going
    ]
    rest = TransformersEngine().generate(model, continued, SamplingSettings(max_new_tokens=9, **settings))
    for place, part in zip(going, rest, strict=True):
        assert (*first[place].ids, *part.ids) == at_once[place].ids
        assert part.finish_reason is at_once[place].finish_reason
        torch.testing.assert_close(part.logprobs, at_once[place].logprobs[5:], atol=1e-5, rtol=0)
        torch.testing.assert_close(part.sampling_logprobs, at_once[place].sampling_logprobs[5:], atol=1e-5, rtol=0)
    for place, part in enumerate(first):
        assert part.ids == at_once[place].ids[: len(part.ids)]
    anew = [replace(request, first_uniform=0) for request in continued]
    other = TransformersEngine().generate(model, anew, SamplingSettings(max_new_tokens=9, **settings))
    assert [part.ids for part in other] != [part.ids for part in rest]


def test_each_request_has_stop_ids_of_its_own(make_model: MakeModel, make_request: MakeRequest) -> None:
    model, sampling = make_model(), SamplingSettings(max_new_tokens=12)
    endless = replace(make_request(6, 0), stop_ids=())
    (plain,) = TransformersEngine().generate(model, [endless], sampling)
    assert (len(plain.ids), plain.finish_reason) == (12, FinishReason.TRUNCATED)
    third, last = plain.ids[2], plain.ids[-1]
    others = [replace(endless, stop_ids=stop_ids) for stop_ids in ((third,), (last,), (258, third), ())]
    found = TransformersEngine().generate(model, others, sampling)
    ends = [plain.ids.index(third) + 1, plain.ids.index(last) + 1, plain.ids.index(third) + 1, 12]
    assert [completion.ids for completion in found] == [plain.ids[:end] for end in ends]
    # the last id of all was asked to end it, so that it was not cut
    reasons = [completion.finish_reason for completion in found]
    assert reasons == [FinishReason.STOPPED] * 3 + [FinishReason.TRUNCATED]


def test_an_engine_knows_ids_and_no_problems_texts_or_tokenizers() -> None:
    assert {entry.name for entry in fields(GenerationRequest)} == {
        "prompt_ids",
        "seed",
        "stop_ids",
        "first_uniform",
        "label",
    }
    assert list(signature(TransformersEngine.generate).parameters) == ["self", "model", "requests", "sampling"]
    assert not {"problem", "text", "completion_text"} & {entry.name for entry in fields(Completion)}


def test_streamed_completions_are_the_generated_ones_each_as_it_ends(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    model, sampling = make_model(end_bias=3.0), SamplingSettings(max_new_tokens=16)
    expected = TransformersEngine().generate(model, requests_, sampling)
    streamed = list(TransformersEngine().stream(model, requests_, sampling))
    assert sorted(place for place, _ in streamed) == list(range(len(LENGTHS)))
    assert all(completion.ids == expected[place].ids for place, completion in streamed)
    lengths = [len(completion.ids) for _, completion in streamed]
    assert lengths == sorted(lengths), "all are in one batch, so that the shortest is there first"


def test_completions_of_other_weights_than_the_policy_has_now_are_refused(
    make_model: MakeModel, requests_: list[GenerationRequest]
) -> None:
    engine, model = TransformersEngine(), make_model()
    engine.sync(model, 3)
    completions = engine.generate(model, requests_, SamplingSettings(max_new_tokens=1))
    check_freshness(engine, completions, 3)
    with pytest.raises(RuntimeError, match="TransformersEngine sampled with the weights of step 3 at step 4; an eng"):
        check_freshness(engine, completions, 4)
