"""Language models on this machine: the same answers however they are asked, and nothing else disturbed."""

from __future__ import annotations

import time

import pytest
import torch

from sgsd_lightning.language_models import Answer, LocalModel, TrainedPolicy
from sgsd_lightning.types import Messages, SamplingSettings
from tests.support.tiny import tiny_policy

CHATS: list[Messages] = [[{"role": "user", "content": f"question {n} " + "?" * n}] for n in range(5)]
SHORT = SamplingSettings(max_new_tokens=200, sampling_temperature=1.0)


def said(model: LocalModel | TrainedPolicy, chats: list[Messages], deadline: float | None = None) -> dict[int, Answer]:
    return dict(model.answers(chats, deadline))


def test_an_answer_depends_on_its_own_chat_and_the_seed_alone() -> None:
    together = said(LocalModel(tiny_policy(), sampling=SHORT), CHATS)
    one_by_one = LocalModel(tiny_policy(), sampling=SHORT, batch_size=1)
    assert said(one_by_one, CHATS) == together
    assert said(one_by_one, CHATS[3:4])[0] == together[3]
    assert said(LocalModel(tiny_policy(), sampling=SHORT, seed=1), CHATS) != together
    # a random model of bytes ends about half of its answers in time
    assert any(answer.text is not None for answer in together.values())


def test_an_answer_that_does_not_end_is_an_error_that_names_the_limit() -> None:
    answers = said(LocalModel(tiny_policy(), sampling=SamplingSettings(max_new_tokens=2)), CHATS)
    assert {answer.error for answer in answers.values()} - {None} == {
        "cut off after 2 tokens (language_model.sampling.max_new_tokens)"
    }


def test_a_prompt_without_room_for_an_answer_is_an_error_of_that_chat_alone() -> None:
    model = LocalModel(tiny_policy(max_positions=300), sampling=SHORT)
    answers = said(model, [[{"role": "user", "content": "x" * 200}], CHATS[0]])
    assert "leaves no room" in str(answers[0].error)
    assert "leaves no room" not in str(answers[1].error)


def test_after_the_deadline_nothing_more_is_asked() -> None:
    answers = said(LocalModel(tiny_policy(), sampling=SHORT), CHATS, deadline=time.monotonic() - 1)
    assert {answer.error for answer in answers.values()} == {"not answered before the deadline"}


def test_the_trained_policy_writes_without_a_trace() -> None:
    source = tiny_policy(gradient_checkpointing=True)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    policy = TrainedPolicy(sampling=SHORT)
    policy.attach(model, tokenizer)
    with policy.session():
        answers = said(policy, CHATS)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert answers == said(LocalModel(source, sampling=SHORT), CHATS)


def test_without_a_training_run_there_is_no_trained_policy() -> None:
    with pytest.raises(ValueError, match="TrainedPolicy is the policy of a training run"):
        said(TrainedPolicy(), CHATS)
