"""Which problems a run can learn from or be measured on: those that can be judged and read as they were written."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sgsd_lightning.data.datamodule import UnusableProblems
from sgsd_lightning.texts.damage import lost_backslashes
from sgsd_lightning.texts.strict_json import shorten
from sgsd_lightning.types import Problem
from sgsd_lightning.verifiers import Verifier
from sgsd_lightning.verifiers.math.equivalence import math_equal

log = logging.getLogger(__name__)
NUM_SHOWN = 5


def keep_usable_problems(
    problems: Sequence[Problem], verifier: Verifier, split: str, unusable: UnusableProblems = "refuse"
) -> list[Problem]:
    """The problems whose answers the verifier can compare with, that contradict no other, and whose LaTeX is whole.

    What cannot be judged is no signal. LaTeX that lost its backslashes is refused in training problems alone: a
    published benchmark is measured as it was published, with a warning.

    Args:
        problems: of one split.
        verifier: that of the split.
        split: its name, for messages; for ``train``, damaged LaTeX is refused too.
        unusable: ``refuse`` stops with the first five, ``drop`` leaves them out with a warning.

    Raises:
        ValueError: if some cannot be used and ``unusable`` is ``refuse``, or if none can.
    """
    damaged = _damaged(problems)
    if damaged and split != "train":
        log.warning(
            "%d of %d %s problems hold LaTeX that lost its backslashes, which the model will read so: %s",
            len(damaged),
            len(problems),
            split,
            shorten_list(list(damaged.values())),
        )
    complaints = {**(damaged if split == "train" else {}), **_contradictions(problems), **_answers(problems, verifier)}
    kept = [problem for place, problem in enumerate(problems) if place not in complaints]
    told = f"{len(complaints)} of {len(problems)} problems"
    listed = shorten_list(list(dict.fromkeys(complaints[place] for place in sorted(complaints))))
    if complaints and (unusable == "refuse" or not kept):
        raise ValueError(
            f"{told} have an answer or a text that {split} cannot use: {listed}. Correct or remove them, take another "
            "verifier, or set data.init_args.unusable_problems to drop"
        )
    if complaints:
        log.warning("dropped %s of %s: %s", told, split, listed)
    return kept


def shorten_list(items: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    more = f" and {len(items) - NUM_SHOWN} more" if len(items) > NUM_SHOWN else ""
    return ", ".join(items[:NUM_SHOWN]) + more


def _answers(problems: Sequence[Problem], verifier: Verifier) -> dict[int, str]:
    complaints = {place: verifier.check_answer(problem.answer) for place, problem in enumerate(problems)}
    return {
        place: f"{problems[place].problem_id} ({shorten(problems[place].answer)}: {why})"
        for place, why in complaints.items()
        if why is not None
    }


def _contradictions(problems: Sequence[Problem]) -> dict[int, str]:
    """Problems with one text whose answers differ by value: nobody knows which is right."""
    by_text: Mapping[str, list[int]] = defaultdict(list)
    for place, problem in enumerate(problems):
        by_text[" ".join(problem.text.split())].append(place)
    found: dict[int, str] = {}
    for places in by_text.values():
        first = problems[places[0]]
        others = (problems[place] for place in places[1:])
        other = next((problem for problem in others if not _is_same(first.answer, problem.answer)), None)
        if other is not None:
            answers = f"{shorten(first.answer, 40)} and {shorten(other.answer, 40)}"
            of_both = f"{first.problem_id} and {other.problem_id} (one text, two answers: {answers})"
            found |= dict.fromkeys(places, of_both)
    return found


def _is_same(answer: str, other: str) -> bool:
    return answer == other or math_equal(answer, other) or math_equal(other, answer)


def _damaged(problems: Sequence[Problem]) -> dict[int, str]:
    found: dict[int, str] = {}
    for place, problem in enumerate(problems):
        texts = {"problem": problem.text, "answer": problem.answer, "solution": problem.solution or ""}
        texts["shards"] = "\n".join(problem.shards)
        for name, text in texts.items():
            damage = lost_backslashes(text)
            if damage:
                found[place] = f"{problem.problem_id} ({name}: LaTeX lost its backslash, {damage[0]})"
                break
    return found
