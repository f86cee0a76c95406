"""A reward function of the signature that TRL's trainers call: reasoning-gym's scorers, by the problem's columns.

Named as ``function`` of a `sgsd_lightning.verifiers.RewardFunction`, with ``completions: text, accept_above: 0.99``.
"""

from __future__ import annotations

from typing import Any

import reasoning_gym


def score(
    completions: list[str], problem: list[str], answer: list[str], source_dataset: list[str], **columns: list[Any]
) -> list[float]:
    """Score the last line of each completion; the other columns are what reasoning-gym noted of the problem."""
    rewards = []
    for index, completion in enumerate(completions):
        entry = {
            "question": problem[index],
            "answer": answer[index],
            "metadata": {name: values[index] for name, values in columns.items()},
        }
        lines = completion.strip().splitlines() or [""]
        rewards.append(reasoning_gym.get_score_answer_fn(source_dataset[index])(lines[-1].strip(), entry))
    return rewards
