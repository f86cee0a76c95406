"""What is benchmarked: sizes, modes, and inputs that look like one step of self-distillation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Mode = Literal["forward", "forward+backward frozen head", "forward+backward trained head"]
MODES: tuple[Mode, ...] = get_args(Mode)
FORWARD, FROZEN, TRAINED = MODES

QWEN3_VOCABULARY = 151_936
ROLLOUT_TOKENS = 1024
"""The rows of a case are rollouts of this length, the longest that the paper samples."""

LOGIT_DEVIATION = 4.0
"""Standard deviation of the synthetic logits: an entropy of about 4 nats at the vocabulary above."""
TEACHER_SHIFT = 0.5
"""How far a teacher moves the sampled token's logit, in nats: up for one, down for the next, so that every stance lies
far from its threshold and rounding cannot turn one around."""
TEACHER_NOISE = 0.1
"""Deviation of a teacher's states from the student's, as a share of theirs."""
_CHUNK_ENTRIES = 2**26


@dataclass(frozen=True, slots=True)
class Size:
    """One size of a case: ``tokens`` rows of the head for the student, ``teachers * tokens`` for the teachers."""

    tokens: int
    teachers: int
    width: int
    vocabulary: int = QWEN3_VOCABULARY

    @classmethod
    def parse(cls, text: str) -> Size:
        """``TxKxD`` or ``TxKxDxV``, as in ``1024x8x2048``.

        Raises:
            ValueError: anything else.
        """
        if not re.fullmatch(r"\d+x\d+x\d+(x\d+)?", text):
            raise ValueError(f"a size must read TxKxD or TxKxDxV, such as 1024x8x2048; got {text!r}")
        return cls(*map(int, text.split("x")))

    @property
    def rows(self) -> int:
        """Rows of student and teachers together."""
        return (1 + self.teachers) * self.tokens

    @property
    def product_flops(self) -> int:
        """Of one product of the student's rows with the head."""
        return 2 * self.tokens * self.width * self.vocabulary

    def __str__(self) -> str:
        return f"{self.tokens}x{self.teachers}x{self.width}x{self.vocabulary}"

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


SMALL = Size(tokens=64, teachers=2, width=64, vocabulary=2003)


def full_sizes(teachers: tuple[int, ...] = (8, 1, 4)) -> list[Size]:
    """Every size of the issue, the one that its goals are stated for first, so that a short budget measures it."""
    return [
        Size(tokens, num_teachers, width)
        for width in (2048, 4096, 1024)
        for num_teachers in teachers
        for tokens in (1024, 4096, 16384)
    ]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of one size: T student rows, K teachers, B rollouts."""

    size: Size
    hidden: Tensor
    """[1 + K, T, D]: the student, then the teachers."""
    weight: Tensor
    """[V, D]."""
    targets: Tensor
    """[T] int64, sampled from the student."""
    upstream: Tensor
    """[T] float32: what arrives at each log-probability in backward."""
    rollout_offsets: Tensor
    """[B + 1] int64."""
    context_weight: Tensor
    """[B, K] float32."""
    outcome: Tensor
    """[B] float32."""

    @property
    def student_hidden(self) -> Tensor:
        """[T, D]."""
        return self.hidden[0]

    @property
    def teacher_hidden(self) -> Tensor:
        """[K, T, D]."""
        return self.hidden[1:]

    @property
    def loss_mask(self) -> Tensor:
        """[T] bool: every token counts, so that nobody profits from skipping rows."""
        return torch.ones_like(self.targets, dtype=torch.bool)


def make_inputs(
    size: Size,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    logit_deviation: float = LOGIT_DEVIATION,
) -> Inputs:
    """Random states whose logits deviate by ``logit_deviation``, targets sampled from the student, teachers near it."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    weight = normal(size.vocabulary, size.width).mul_(0.05).to(dtype)
    scale = logit_deviation / (0.05 * size.width**0.5)
    hidden = torch.empty(1 + size.teachers, size.tokens, size.width, device=device, dtype=dtype)
    student = hidden[0].copy_(normal(size.tokens, size.width).mul_(scale))
    targets = sample_targets(student, weight, generator)
    towards_target = weight[targets].float()
    towards_target /= towards_target.square().sum(-1, keepdim=True).clamp(min=1e-6)
    for index, teacher in enumerate(hidden[1:]):
        shift = TEACHER_SHIFT if index % 2 == 0 else -TEACHER_SHIFT
        noise = normal(*student.shape).mul_(TEACHER_NOISE * scale)
        teacher.copy_(student.float().add_(noise).add_(towards_target, alpha=shift))
    num_rollouts = max(1, size.tokens // ROLLOUT_TOKENS)
    return Inputs(
        size=size,
        hidden=hidden,
        weight=weight,
        targets=targets,
        upstream=normal(size.tokens) / size.tokens,
        rollout_offsets=_even_offsets(size.tokens, num_rollouts, device),
        context_weight=normal(num_rollouts, size.teachers).softmax(-1),
        outcome=torch.where(torch.arange(num_rollouts, device=device) % 2 == 0, 1.0, -1.0),
    )


def sample_targets(hidden: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
    """[N] tokens drawn from ``softmax(hidden @ weight.T)``, in bounded chunks of rows."""
    targets = [
        torch.multinomial((hidden[rows] @ weight.T).float().softmax(-1), 1, generator=generator).squeeze(-1)
        for rows in row_chunks(hidden.shape[0], weight.shape[0])
    ]
    return torch.cat(targets)


def row_chunks(num_rows: int, columns: int, entries: int = _CHUNK_ENTRIES) -> Iterator[slice]:
    """Slices over ``num_rows`` with at most ``entries`` entries of ``columns`` columns each (one row at the least)."""
    step = max(1, entries // max(1, columns))
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def _even_offsets(tokens: int, parts: int, device: torch.device) -> Tensor:
    return torch.arange(parts + 1, device=device, dtype=torch.int64) * tokens // parts
