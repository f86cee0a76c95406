"""Step 3: the tiles that ship against float64, with the softcap, the temperature and a padded head.

On a GPU at the sizes of models; without one in Triton's interpreter, at small sizes with every edge of a tile.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.first_contact.probes.record import Record

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when kernels are defined, so before they are imported

from sgsd_kernels import HeadOptions, linear_logprob
from sgsd_kernels.head.function import linear_logprob_by

IGNORED = -100
LOGIT_DEVIATION = 4.0
DIGESTED_ROWS = 512
PARTS = ("logprob", "lse", "entropy")
Logprob = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One call: N rows of width D, V tokens, and the head's options."""

    num_rows: int
    width: int
    vocabulary: int
    dtype: torch.dtype
    options: Mapping[str, Any]

    def __str__(self) -> str:
        options = "".join(f", {name} {value:g}" for name, value in self.options.items())
        return f"{self.num_rows} x {self.width} x {self.vocabulary} {str(self.dtype).removeprefix('torch.')}{options}"


GPU_SHAPES = (
    (2048, 151_936, torch.bfloat16),
    (4096, 151_936, torch.bfloat16),
    (2056, 50_257, torch.float16),
    (1024, 257, torch.bfloat16),
)
INTERPRETED_SHAPE = (136, 600, torch.bfloat16)


def measure(record: Record) -> None:
    record.put(is_interpreted=not torch.cuda.is_available())
    for case in cases():
        for name, logprob in implementations().items():
            record.at(f"{name}, {case}")
            record.add("cases", row_of(case, name, logprob))


def cases() -> Iterator[Case]:
    """Every case of this machine, the shapes of models first."""
    if not torch.cuda.is_available():
        yield Case(130, *INTERPRETED_SHAPE, {})
        yield Case(130, *INTERPRETED_SHAPE, {"softcap": 30.0, "temperature": 0.7, "vocab_limit": 595})
        return
    for (width, vocabulary, dtype), num_rows in itertools.product(GPU_SHAPES, (300, 127, 1)):
        for options in ({}, {"softcap": 30.0, "temperature": 0.7}, {"vocab_limit": vocabulary - 5}):
            yield Case(num_rows, width, vocabulary, dtype, options)


def implementations() -> dict[str, Logprob]:
    """Both ways that a call can take on this device; without one, the tiles of Hopper and of Ampere."""
    if torch.cuda.is_available():
        return {
            "triton": functools.partial(linear_logprob, implementation="triton"),
            "cublas": functools.partial(linear_logprob, implementation="cublas"),
        }
    from sgsd_kernels.head.triton import TritonPasses

    return {f"triton, tiles of sm_{sm}": functools.partial(_by_tiles, TritonPasses(sm)) for sm in (90, 80)}


def row_of(case: Case, name: str, logprob: Logprob) -> dict[str, Any]:
    """Errors of one implementation in one case, whether its bits repeat, and a digest of them."""
    hidden, weight, targets = _inputs(case)
    truth, expected = _run(_definition, hidden.double(), weight.double(), targets, case.options)
    found, gradients = _run(logprob, hidden, weight, targets, case.options)
    again, _ = _run(logprob, hidden, weight, targets, case.options)
    with torch.no_grad():
        alone = logprob(hidden[-1:], weight, targets[-1:], entropy=True, **case.options)
    errors = {part: (ours - exact).abs().max().item() for part, ours, exact in zip(PARTS, found, truth, strict=True)}
    digest = hashlib.sha256()
    # of the head's gradient, which is gigabytes, the first rows
    for part in (*found, gradients[0], gradients[1][:DIGESTED_ROWS]):
        digest.update(part.float().cpu().numpy().tobytes())
    return {
        "implementation": name,
        "case": str(case),
        "width": case.width,
        **errors,
        "grad_hidden": _relative(gradients[0], expected[0]),
        "grad_weight": _relative(gradients[1], expected[1]),
        "same_again": all(torch.equal(p, q) for p, q in zip(found, again, strict=True)),
        "same_alone": all(torch.equal(p[-1:], q) for p, q in zip(found, alone, strict=True)),
        "digest": digest.hexdigest()[:16],
    }


def _inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """hidden [N, D], weight [V, D], targets [N] of a fixed seed; every seventh row but the last is ignored."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator, device=device)
    hidden = (draw(case.num_rows, case.width) * LOGIT_DEVIATION / case.width**0.5).to(case.dtype)
    weight = draw(case.vocabulary, case.width).to(case.dtype)
    targets = torch.randint(case.vocabulary - 5, (case.num_rows,), generator=generator, device=device)
    targets[: case.num_rows - 1 : 7] = IGNORED
    return hidden, weight, targets


def _run(
    logprob: Logprob, hidden: Tensor, weight: Tensor, targets: Tensor, options: Mapping[str, Any]
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """logprob, lse and entropy [N], and the gradients in hidden and weight of logprob + lse / 10, summed."""
    leaves = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    output = logprob(*leaves, targets, entropy=True, **options)
    gradients = torch.autograd.grad(output[0].sum() + 0.1 * output[1].sum(), leaves)
    return [part.detach() for part in output], gradients


def _definition(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    entropy: bool,
    softcap: float | None = None,
    temperature: float = 1.0,
    vocab_limit: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The head in plain torch, in the dtype of its inputs."""
    logits = hidden @ weight[:vocab_limit].T
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    logits = logits / temperature
    is_kept = targets != IGNORED
    lse = logits.logsumexp(-1)
    target = logits.gather(-1, targets.clamp(min=0)[:, None])[:, 0]
    logprobs = (logits - lse[:, None]).detach()
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return (target - lse).where(is_kept, 0.0), lse.where(is_kept, 0.0), entropies.where(is_kept, 0.0)


def _by_tiles(passes: Any, hidden: Tensor, weight: Tensor, targets: Tensor, *, entropy: bool, **options: Any) -> Any:
    return linear_logprob_by(
        passes,
        hidden,
        weight,
        targets,
        bias=None,
        options=HeadOptions(**options),
        entropy=entropy,
        ignore_index=IGNORED,
    )


def _relative(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()
