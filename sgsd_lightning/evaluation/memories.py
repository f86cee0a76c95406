"""Cold start: collects judged completions of training problems as memories, from which a bank is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sgsd_lightning.files import keep_whole_lines
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.rollouts import SingleTurn
from sgsd_lightning.rollouts.base import Wanted
from sgsd_lightning.skills.growth.memories import load_memories, memory_line, to_memory
from sgsd_lightning.skills.leaks.evaluation_problems import EvaluationProblems
from sgsd_lightning.types import Problem

ROLLOUTS_AT_A_TIME = 64


def without_evaluation_problems(problems: Sequence[Problem], evaluation: Iterable[Problem]) -> list[Problem]:
    """Remove evaluation problems from training problems, whatever their spelling.

    Raises:
        ValueError: if none is left.
    """
    known = EvaluationProblems(problem.text for problem in evaluation)
    kept = [problem for problem in problems if not known.contains(problem.text)]
    if problems and not kept:
        raise ValueError(
            f"all {len(problems)} training problems are evaluation problems too; memories of them would leak into the "
            "evaluation. Set data.init_args.train to other problems"
        )
    return kept


def memory_id(problem: Problem, index: int) -> str:
    """Return the id of a problem's ``index``-th memory."""
    return f"{problem.problem_id}#{index}"


def num_missing(problems: Sequence[Problem], path: Path, samples: int) -> int:
    """Count the completions that are still to sample."""
    return len(_missing(problems, path, samples))


def collect_memories(
    module: SelfDistillation,
    problems: Sequence[Problem],
    path: Path,
    samples: int,
    on_rollouts: Callable[[int], None] = lambda num: None,
) -> None:
    """Append the memories that ``path`` lacks; the module's model is on its device already.

    A completion depends on the run's seed, the problem and its index alone, so that an interrupted collection gives the
    same file. Completions that the verifier judges neither right nor wrong leave no memory.

    Args:
        module: Policy, prompts, sampling and verifier.
        problems: Without those of any evaluation.
        path: JSON Lines, written batch by batch.
        samples: Completions per problem.
        on_rollouts: Called with the number of further completions.

    Raises:
        ValueError: if ``path`` is no file of memories.
    """
    missing = _missing(problems, path, samples)
    trained = module.learner.rollouter
    plain = SingleTurn(trained.engine, getattr(trained, "sampling", None))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(missing), ROLLOUTS_AT_A_TIME):
            batch = missing[start : start + ROLLOUTS_AT_A_TIME]
            wanted = [Wanted(problem, index) for problem, index in batch]
            judged = module.learner.judge(plain.sample(module.learner, wanted, stream="memory"))
            for (problem, index), entry in zip(batch, judged, strict=True):
                memory = to_memory(entry, memory_id(problem, index))
                if memory is not None:
                    file.write(memory_line(memory) + "\n")
            file.flush()
            on_rollouts(len(batch))


def _missing(problems: Sequence[Problem], path: Path, samples: int) -> list[tuple[Problem, int]]:
    """Return the completions after the last memory of the file; missing ones before it had no judgement."""
    wanted = [(problem, index) for problem in problems for index in range(samples)]
    if not path.exists():
        return wanted
    keep_whole_lines(path)
    place = {memory_id(*entry): number for number, entry in enumerate(wanted)}
    written = [memory.memory_id for memory in load_memories(path)]
    unknown = next((name for name in written if name not in place), None)
    if unknown is not None:
        raise ValueError(
            f"{path} holds a memory {unknown!r} that this collection does not make; resume it with the settings that "
            "it was begun with, or write to another file"
        )
    return wanted[max((place[name] + 1 for name in written), default=0) :]
