"""A rollout token by token with each teacher's log-ratios, for the report page and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

CLIP = 3.0
"""Nats: a log-ratio beyond this has the full colour."""
MAX_PICTURED_TOKENS = 60
POLARITY_NAMES = {1: "helpful", 0: "neutral", -1: "misleading"}

Rollout = Mapping[str, Any]
"""A row of a run's table of rollouts, with its tokens."""


def viewed_rollout(row: Rollout) -> dict[str, Any]:
    """Return the data of a rollout that the page needs, as plain values."""
    keys = ("step", "problem_id", "problem", "reference_answer", "answer", "outcome", "finish_reason")
    return {
        **{key: row.get(key) for key in keys},
        "tokens": row["tokens"],
        "mask": row["loss_mask"],
        "student": row["student_logprob"],
        "teachers": [_viewed_teacher(teacher) for teacher in row["teachers"]],
        "pull": net_pull(row),
    }


def _viewed_teacher(teacher: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sources": teacher["sources"],
        "text": teacher.get("text", ""),
        "weight": teacher["weight"],
        "stance_score": teacher.get("stance_score"),
        "stance": teacher.get("stance"),
        "polarity": teacher.get("polarity"),
        "log_ratio": teacher["log_ratio"],
        "gate": teacher.get("gate"),
    }


def net_pull(row: Rollout) -> list[float] | None:
    """Where all teachers together pull each token's probability, in [-1, 1]: up above 0, down below.

    sum_k weight_k polarity_k gate_k sign(log_ratio_k), in proportion to the token's part of SGSD's gradient; None
    where the objective has no gate.
    """
    teachers = row["teachers"]
    if not teachers or any("gate" not in teacher or "polarity" not in teacher for teacher in teachers):
        return None
    pulls = []
    for place in range(len(row["tokens"])):
        pull = 0.0
        for teacher in teachers:
            log_ratio = teacher["log_ratio"][place]
            sign = (log_ratio > 0) - (log_ratio < 0)
            pull += teacher["weight"] * teacher["polarity"] * teacher["gate"][place] * sign
        pulls.append(round(pull, 4))
    return pulls


def draw_tokens(row: Rollout, path: Path) -> None:
    """Draw a PNG: tokens from left to right, one line per teacher, coloured by log-ratio."""
    tokens = [_shown(token) for token in row["tokens"][:MAX_PICTURED_TOKENS]]
    teachers = row["teachers"]
    values = [teacher["log_ratio"][: len(tokens)] for teacher in teachers]
    figure, axes = pyplot.subplots(figsize=(2.8 + 0.3 * len(tokens), 1.7 + 0.32 * len(teachers)), layout="constrained")
    image = axes.imshow(values, cmap="RdBu", vmin=-CLIP, vmax=CLIP, aspect="auto")
    axes.set_xticks(range(len(tokens)), [_literal(token) for token in tokens], rotation=90, family="monospace")
    axes.set_yticks(range(len(teachers)), [_label(teacher) for teacher in teachers], fontsize=8)
    verdict = "right" if row["outcome"] > 0 else "wrong" if row["outcome"] < 0 else "not judged"
    axes.set_title(_literal(f"step {row['step']}, {row['problem_id']}: {verdict} (answer {row.get('answer')})"))
    figure.colorbar(image, ax=axes, label="log-ratio: teacher minus student, nats")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _label(teacher: Mapping[str, Any]) -> str:
    polarity = teacher.get("polarity")
    said = "" if polarity is None else f" ({POLARITY_NAMES[polarity]})"
    return _literal("+".join(teacher["sources"]) + said)


def _shown(token: str, width: int = 12) -> str:
    """Return a token on one line, cut to ``width``."""
    text = token.replace("\n", "↵").replace("\t", "⇥")
    return text if len(text) <= width else text[: width - 1] + "…"


def _literal(text: str) -> str:
    """Escape dollar signs, which would start mathematics."""
    return text.replace("$", r"\$")


def default_rollout(rows: Sequence[Rollout]) -> Rollout | None:
    """The last one of which at least one teacher is not neutral; else the last one."""
    telling = [row for row in rows if any(teacher.get("polarity") for teacher in row["teachers"])]
    chosen = telling or list(rows)
    return chosen[-1] if chosen else None
