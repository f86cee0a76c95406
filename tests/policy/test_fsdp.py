"""Scoring a model that FSDP2 has sharded: the head is read where the root's parameters are gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from sgsd_lightning.policy import LiveTeacher
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import Rollout, ScoreRequest, TokenScores
from tests.support.tiny_models import rows_of


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of this one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("error:FSDP2-wrapped")
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("name", ["qwen3 tied", "qwen3 untied"])
@pytest.mark.parametrize("support_top_k", [-1, 2])
def test_a_sharded_model_scores_and_learns_as_a_whole_one(
    name: str, support_top_k: int, make_model: Callable[..., PreTrainedModel], make_rollout: Callable[..., Rollout]
) -> None:
    def score(model: PreTrainedModel) -> TokenScores:
        request = ScoreRequest(support_top_k=support_top_k)
        rollouts = [make_rollout(5, 6), make_rollout(3, 2, seed=1)]
        prompts = [[(4, 5, 6), (7,)], [(8, 9)]]
        return Scorer().score(model, LiveTeacher(), rows_of(rollouts, prompts, [[0.5, 0.5], [1.0]]), request)

    def loss(scores: TokenScores) -> torch.Tensor:
        if scores.support is None:
            return scores.student_logprob.sum()
        return scores.support.student_logprob.gather(-1, scores.support.target_slot[..., None]).sum()

    whole, sharded = make_model(name), make_model(name)
    score(sharded)  # bound before it is sharded, as a model that was loaded is
    for layer in sharded.model.layers:
        fully_shard(layer)
    fully_shard(sharded, reshard_after_forward=True)
    expected, actual = score(whole), score(sharded)
    torch.testing.assert_close(actual.student_logprob, expected.student_logprob, atol=1e-6, rtol=0)
    torch.testing.assert_close(actual.teacher_logprob, expected.teacher_logprob, atol=1e-6, rtol=0)
    loss(expected).backward()
    loss(actual).backward()
    for parameter, reference in zip(sharded.parameters(), whole.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.full_tensor(), reference.grad, atol=1e-5, rtol=0)
