"""Hidden states at the positions that predict, against transformers' own of each sequence alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy.loading import checkpoint_activations
from sgsd_lightning.scoring import Scorer
from sgsd_lightning.types import TokenSequence

MakeModel = Callable[..., PreTrainedModel]
MakeIds = Callable[[int, int], tuple[int, ...]]
LAYERS = [0, 1, 2, -1, -2]


@pytest.fixture
def sequences(make_ids: MakeIds) -> list[TokenSequence]:
    """Ragged ones, of which some begin alike; one predicts nothing, one not what follows."""
    prompt = make_ids(35, 1)
    return [
        TokenSequence.causal(prompt, make_ids(6, 2)),
        TokenSequence.causal(make_ids(3, 3), make_ids(9, 4)),
        TokenSequence.causal(make_ids(4, 5), ()),
        TokenSequence.causal(prompt, make_ids(2, 6)),
        TokenSequence(input_ids=make_ids(7, 7), predicted_from=(6, 0, 3), targets=(9, 8, 7)),
        TokenSequence.causal((5,), (6,)),
    ]


def _own_states(model: PreTrainedModel, sequences: list[TokenSequence]) -> Tensor:
    """[layers, N, D] of the whole model, one sequence at a time."""
    with torch.no_grad():
        outputs = [
            model(input_ids=torch.tensor([sequence.input_ids]), use_cache=False, output_hidden_states=True)
            for sequence in sequences
        ]
    return torch.stack(
        [
            torch.cat(
                [
                    output.hidden_states[layer][0, list(sequence.predicted_from)]
                    for output, sequence in zip(outputs, sequences, strict=True)
                ]
            )
            for layer in LAYERS
        ]
    )


@pytest.mark.parametrize("budget", [1, 30, 50, 10_000])
@pytest.mark.parametrize(
    ("name", "attention"),
    [("qwen3 tied", "sgsd_varlen"), ("qwen3 tied", "sdpa"), ("gemma2", "sgsd_varlen"), ("gemma2", "eager")],
)
def test_packed_features_are_transformers_own_at_the_positions_that_predict(
    name: str, attention: str, budget: int, make_model: MakeModel, sequences: list[TokenSequence]
) -> None:
    actual = Scorer(teacher_tokens_per_forward=budget).features(make_model(name, attention), sequences, LAYERS)
    expected = _own_states(make_model(name, "eager"), sequences)
    assert actual.shape == (len(LAYERS), 6 + 9 + 2 + 3 + 1, 32)
    assert actual.dtype == torch.float32
    assert not actual.requires_grad
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)
    # a neighbouring position is another feature, so that one off by one would be found out
    assert ((actual[:, 1:] - actual[:, :-1]).abs().amax(-1) > 1e-3).all()


def test_packed_features_are_those_of_each_sequence_alone(
    make_model: MakeModel, sequences: list[TokenSequence]
) -> None:
    model, scorer = make_model(), Scorer()
    apart = [scorer.features(model, [sequence], LAYERS) for sequence in sequences]
    torch.testing.assert_close(scorer.features(model, sequences, LAYERS), torch.cat(apart, 1), atol=1e-5, rtol=1e-5)


def test_the_last_features_are_what_the_head_predicts_from(
    make_model: MakeModel, make_ids: MakeIds, own_logprob: Callable[..., Tensor]
) -> None:
    model, prompt, ids = make_model(), make_ids(8, 1), make_ids(5, 2)
    (features,) = Scorer().features(model, [TokenSequence.causal(prompt, ids)], [-1])
    logprob = model.lm_head(features).log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
    torch.testing.assert_close(logprob.double(), own_logprob(model, prompt, ids), atol=1e-5, rtol=0)


def test_layer_0_is_the_embedding(make_model: MakeModel, sequences: list[TokenSequence]) -> None:
    model = make_model()
    (features,) = Scorer().features(model, sequences, [0])
    ids = [sequence.input_ids[place] for sequence in sequences for place in sequence.predicted_from]
    assert torch.equal(features, model.get_input_embeddings()(torch.tensor(ids)))


def test_in_training_mode_with_checkpoints_and_in_half_precision_they_are_there(
    make_model: MakeModel, sequences: list[TokenSequence]
) -> None:
    expected = Scorer().features(make_model(), sequences, LAYERS)
    model = make_model().train()
    checkpoint_activations(model)
    torch.testing.assert_close(Scorer().features(model, sequences, LAYERS), expected, atol=1e-5, rtol=1e-5)
    half = Scorer().features(make_model().bfloat16(), sequences, LAYERS)
    assert half.dtype == torch.float32
    assert (half - expected).norm() < 0.05 * expected.norm()
