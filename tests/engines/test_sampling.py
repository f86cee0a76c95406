"""The token sampler on distributions that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sgsd_lightning.engines import sampling as sampling_module
from sgsd_lightning.engines.sampling import TokenSampler
from sgsd_lightning.types import SamplingSettings

PROBABILITIES = torch.tensor([0.1, 0.4, 0.05, 0.2, 0.25])
NUM_ROWS = 20_000


def _frequencies(logits: Tensor, sampling: SamplingSettings) -> Tensor:
    """How often each token is chosen when the uniform numbers are spread evenly: the distribution, to 1/NUM_ROWS."""
    uniforms = (torch.arange(NUM_ROWS, dtype=torch.float64) + 0.5) / NUM_ROWS
    ids = TokenSampler(sampling)(logits.expand(NUM_ROWS, -1), uniforms).ids
    return ids.bincount(minlength=logits.shape[-1]) / NUM_ROWS


@pytest.mark.parametrize(
    ("settings", "expected", "kept_mass"),
    [
        ({}, [0.1, 0.4, 0.05, 0.2, 0.25], 1.0),
        ({"sampling_top_k": 2}, [0, 0.4 / 0.65, 0, 0, 0.25 / 0.65], 0.65),
        ({"sampling_top_p": 0.7}, [0, 0.4 / 0.85, 0, 0.2 / 0.85, 0.25 / 0.85], 0.85),
        ({"sampling_min_p": 0.45}, [0, 0.4 / 0.85, 0, 0.2 / 0.85, 0.25 / 0.85], 0.85),
        # squares 0.01, 0.16, 0.0025, 0.04, 0.0625 of sum 0.275
        ({"sampling_temperature": 0.5, "sampling_top_k": 3}, [0, 0.16, 0, 0.04, 0.0625], 0.2625 / 0.275),
        # of the three kept by top-k, top-p drops the one after 0.65 / 0.85 = 0.765 is reached
        ({"sampling_top_k": 3, "sampling_top_p": 0.7}, [0, 0.4 / 0.65, 0, 0, 0.25 / 0.65], 0.65),
        ({"sampling_top_k": 99}, [0.1, 0.4, 0.05, 0.2, 0.25], 1.0),
        ({"sampling_temperature": 0}, [0, 1, 0, 0, 0], 1.0),
    ],
)
def test_tokens_come_as_often_as_the_filtered_distribution_says(
    settings: dict[str, float], expected: list[float], kept_mass: float
) -> None:
    sampling = SamplingSettings(**settings)  # type: ignore[arg-type]
    logits = PROBABILITIES.log() + 3.0
    distribution = torch.tensor(expected) / sum(expected)
    torch.testing.assert_close(_frequencies(logits, sampling), distribution, atol=2 / NUM_ROWS, rtol=0)
    tokens = TokenSampler(sampling)(logits[None], torch.tensor([0.3], dtype=torch.float64))
    chosen = int(tokens.ids)
    assert tokens.kept_mass.item() == pytest.approx(kept_mass, abs=1e-6)
    assert tokens.sampling_logprob.exp().item() == pytest.approx(distribution[chosen].item(), abs=1e-6)
    assert tokens.logprob.exp().item() == pytest.approx(PROBABILITIES[chosen].item(), abs=1e-6)


def test_a_uniform_number_next_to_one_takes_the_last_possible_token() -> None:
    almost_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    for logits in ([0.0, 1.0, -torch.inf, -torch.inf], [0.3, 0.1, 0.2, -60.0]):
        tokens = TokenSampler(SamplingSettings(sampling_top_k=2))(torch.tensor([logits]), almost_one)
        assert torch.isfinite(tokens.sampling_logprob).all()


def test_a_uniform_number_of_zero_takes_the_first_possible_token() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    tokens = TokenSampler(SamplingSettings())(torch.tensor([[-torch.inf, 0.0, 0.0]]), zero)
    assert tokens.ids.tolist() == [1]


def test_half_precision_logits_are_sampled_in_float32() -> None:
    logits = torch.randn(3, 7).bfloat16()
    tokens = TokenSampler(SamplingSettings())(logits, torch.full((3,), 0.5, dtype=torch.float64))
    expected = logits.float().log_softmax(-1).gather(-1, tokens.ids[:, None])[:, 0]
    assert tokens.logprob.dtype == torch.float32
    torch.testing.assert_close(tokens.logprob, expected)


def _definition(logits: Tensor, uniforms: Tensor, sampling: SamplingSettings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Transformers' filters over the whole vocabulary in float64: bounds of each token's uniforms, and log-probs.

    Returns:
        The cumulative probability before and after each token, and log-probabilities of the model and of the filtered
        distribution, all [B, V].
    """
    filters = LogitsProcessorList()
    if sampling.sampling_top_k:
        filters.append(TopKLogitsWarper(sampling.sampling_top_k))
    if sampling.sampling_top_p < 1:
        filters.append(TopPLogitsWarper(sampling.sampling_top_p))
    if sampling.sampling_min_p:
        filters.append(MinPLogitsWarper(sampling.sampling_min_p))
    tempered = TemperatureLogitsWarper(sampling.sampling_temperature)(None, logits.double())
    filtered = filters(None, tempered)
    after = filtered.softmax(-1).cumsum(-1)
    before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], dim=-1)
    return before, after, logits.double().log_softmax(-1), filtered.log_softmax(-1)


@pytest.mark.parametrize("spread", [0.3, 3.0, 8.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampling_temperature": 1.3},
        {"sampling_temperature": 1.1, "sampling_top_k": 20, "sampling_top_p": 0.95},
        {"sampling_top_k": 50, "sampling_min_p": 0.3},
        {"sampling_top_p": 0.9},
        {"sampling_top_p": 0.99, "sampling_min_p": 1e-3},
        {"sampling_min_p": 0.05},
    ],
)
@pytest.mark.parametrize("num_tokens", [700, 512 * 16 + 5, 512 * 20])
def test_every_choice_is_the_one_that_the_whole_cumulative_distribution_makes(
    settings: dict[str, float], spread: float, num_tokens: int
) -> None:
    """In large vocabularies too, which are searched by blocks and, when filtered, by their likely tokens alone."""
    sampling = SamplingSettings(**settings)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(num_tokens)
    logits = spread * torch.randn(64, num_tokens, generator=generator)
    uniforms = torch.rand(64, generator=generator, dtype=torch.float64)
    tokens = TokenSampler(sampling)(logits, uniforms)
    before, after, own, filtered = (
        values.gather(-1, tokens.ids[:, None])[:, 0] for values in _definition(logits, uniforms, sampling)
    )
    rounding = 1e-6
    assert bool((before - rounding <= uniforms).all())
    assert bool((uniforms <= after + rounding).all())
    torch.testing.assert_close(tokens.logprob.double(), own, atol=2e-6, rtol=0)
    torch.testing.assert_close(tokens.sampling_logprob.double(), filtered, atol=2e-6, rtol=0)


def test_tokens_that_tie_with_the_last_of_top_k_are_kept() -> None:
    logits = torch.tensor([[1.0, 3.0, 1.0, 0.0, 1.0], [1.0, 3.0, 0.5, 2.0, 0.0]])
    sampling = SamplingSettings(sampling_top_k=2)
    for uniform, expected in ((0.0, [0, 1]), (0.999, [4, 3])):
        tokens = TokenSampler(sampling)(logits, torch.full((2,), uniform, dtype=torch.float64))
        assert tokens.ids.tolist() == expected


@pytest.mark.parametrize("sampling", [SamplingSettings(), SamplingSettings(sampling_top_p=0.9, sampling_top_k=40)])
@pytest.mark.parametrize("num_tokens", [97, 9001])
def test_the_deterministic_sums_of_a_gpu_choose_the_same_tokens(
    sampling: SamplingSettings, num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch has no deterministic cumulative sum of floats on CUDA, and raises where one is asked for."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(32, num_tokens, generator=generator)
    uniforms = torch.rand(32, dtype=torch.float64, generator=generator)
    expected = TokenSampler(sampling)(logits, uniforms)
    monkeypatch.setattr(sampling_module, "_cumulative", sampling_module._doubling_sums)

    def refused(*_: object) -> Tensor:
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation")

    monkeypatch.setattr(torch.Tensor, "cumsum", refused)
    found = TokenSampler(sampling)(logits, uniforms)
    assert torch.equal(found.ids, expected.ids)


@pytest.mark.parametrize("width", [1, 2, 7, 64, 100])
def test_doubling_sums_are_cumulative_sums(width: int) -> None:
    masses = torch.rand(5, width, dtype=torch.float64)
    torch.testing.assert_close(sampling_module._doubling_sums(masses), masses.cumsum(-1), rtol=1e-14, atol=0)
