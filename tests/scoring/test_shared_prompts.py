"""What several sequences begin with is computed once: scores and gradients are those of plain packing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.scoring import packing
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import RowLayout, pack
from sgsd_lightning.types import TokenSequence

MakeModel = Callable[..., PreTrainedModel]
MakeIds = Callable[[int, int], tuple[int, ...]]

MODELS = ["qwen3 tied", "gemma2"]
"""Both with grouped heads; gemma2 with a window of 4 in every second layer."""
GROUPS = {
    "ragged": [(6, [5, 1, 9, 5]), (1, [3, 3]), (9, [7]), (2, [1, 1, 1])],
    "one completion a prompt": [(6, [5]), (1, [3]), (9, [7])],
    "one long group": [(3, [8] * 6)],
}


@pytest.fixture(params=[*GROUPS, "prompts that begin alike"])
def sequences(
    request: pytest.FixtureRequest, make_ids: MakeIds, monkeypatch: pytest.MonkeyPatch
) -> list[TokenSequence]:
    """Prompts with their completions, those of one prompt not next to each other."""
    if request.param not in GROUPS:
        monkeypatch.setattr(packing, "MIN_SHARED_TOKENS", 3)
        return _that_begin_alike(make_ids)
    grouped = [
        [
            TokenSequence.causal(make_ids(num_prompt, index), make_ids(length, 100 * index + place))
            for place, length in enumerate(lengths, 1)
        ]
        for index, (num_prompt, lengths) in enumerate(GROUPS[request.param])
    ]
    return [group[place] for place in range(6) for group in grouped if place < len(group)]


def _that_begin_alike(make_ids: MakeIds) -> list[TokenSequence]:
    """A tree of prompts: some end where others branch off, two deep; one has too little in common with the others."""
    trunk, branch = make_ids(6, 1), make_ids(5, 2)
    prompts = [trunk + branch + make_ids(2, 3), trunk, trunk[:4] + make_ids(7, 4), trunk + branch, (*trunk[:2], 7, 8)]
    return [
        TokenSequence.causal(prompt_ids, make_ids(length, 10 * length + place))
        for length in (4, 1)
        for place, prompt_ids in enumerate(prompts)
    ]


def _scores_and_gradients(
    model: PreTrainedModel, sequences: Sequence[TokenSequence], layout: RowLayout
) -> tuple[Tensor, dict[str, Tensor]]:
    bind_score(model)
    model.zero_grad()
    logprob = model.score(pack(sequences, layout), implementation="chunked").logprob
    (logprob * torch.linspace(-1, 1, len(logprob))).sum().backward()
    return logprob.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradients_are_those_of_padded_rows_under_eager_attention(
    name: str, sequences: list[TokenSequence], make_model: MakeModel
) -> None:
    actual, gradients = _scores_and_gradients(make_model(name), sequences, "shared")
    expected, reference = _scores_and_gradients(make_model(name, "eager"), sequences, "padded")
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert gradients.keys() == reference.keys()
    for key, value in reference.items():
        torch.testing.assert_close(gradients[key], value, atol=2e-5 * max(1.0, value.abs().max().item()), rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_they_differ_from_plain_packing_by_rounding(
    name: str, sequences: list[TokenSequence], make_model: MakeModel
) -> None:
    model = make_model(name)
    exact, _ = _scores_and_gradients(model, sequences, "packed")
    with torch.autocast("cpu", torch.bfloat16):
        plain, plain_gradients = _scores_and_gradients(model, sequences, "packed")
        shared, shared_gradients = _scores_and_gradients(model, sequences, "shared")
    rounding = (plain - exact).abs().max()
    assert (shared - exact).abs().max() <= 2 * rounding
    for key, value in plain_gradients.items():
        assert (shared_gradients[key] - value).norm() <= 0.1 * value.norm(), key


def test_gradient_checkpointing_changes_nothing(sequences: list[TokenSequence], make_model: MakeModel) -> None:
    plain, checkpointed = make_model(), make_model()
    checkpointed.train().gradient_checkpointing_enable({"use_reentrant": False})
    expected, reference = _scores_and_gradients(plain, sequences, "shared")
    actual, gradients = _scores_and_gradients(checkpointed, sequences, "shared")
    assert torch.equal(actual, expected)
    for key, value in reference.items():
        torch.testing.assert_close(gradients[key], value, atol=1e-6, rtol=1e-6)


def test_another_completion_of_the_prompt_is_not_seen(make_model: MakeModel, make_ids: MakeIds) -> None:
    model = make_model()
    bind_score(model)
    prompt = make_ids(5, 1)
    first = TokenSequence.causal(prompt, make_ids(6, 2))
    scores = []
    for seed in (3, 4):
        other = TokenSequence.causal(prompt, make_ids(4, seed))
        for order, place in (([first, other], slice(0, 6)), ([other, first], slice(4, 10))):
            with torch.no_grad():
                scores.append(model.score(pack(order, "shared"), implementation="chunked").logprob[place])
    for score in scores[1:]:
        torch.testing.assert_close(score, scores[0], atol=4e-6, rtol=0)


def test_prompts_that_begin_alike_are_in_the_row_once(make_ids: MakeIds, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = _that_begin_alike(make_ids)
    monkeypatch.setattr(packing, "MIN_SHARED_TOKENS", 3)
    # trunk, branch, two ends, and what has two tokens in common only; completions of four tokens, less their last
    assert pack(sequences, "shared").input_ids.numel() == 6 + 5 + 2 + 7 + 4 + 5 * 3
    monkeypatch.setattr(packing, "MIN_SHARED_TOKENS", 20)
    assert pack(sequences, "shared").input_ids.numel() == 13 + 6 + 11 + 11 + 4 + 5 * 3


def test_an_attention_that_cannot_share_says_so(make_model: MakeModel, make_ids: MakeIds) -> None:
    model = make_model(attention="sdpa")
    bind_score(model)
    group = [TokenSequence.causal((5, 6), make_ids(3, seed)) for seed in (1, 2)]
    with pytest.raises(ValueError, match="attention sdpa cannot share a prefix between sequences"):
        model.score(pack(group, "shared"))
