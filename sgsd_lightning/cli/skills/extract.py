"""`sgsd skills extract`: candidate skills and mistakes from memories, one call of the writer a memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.progress import Progress

from sgsd_lightning.cli.output import say
from sgsd_lightning.cli.skills.arguments import call_with_arguments
from sgsd_lightning.data import JsonlProblems
from sgsd_lightning.skills.growth.extraction import extract_candidates
from sgsd_lightning.skills.growth.memories import load_memories
from sgsd_lightning.skills.growth.writer import SkillWriter
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.texts.shown import one_line


def main(arguments: Sequence[str]) -> None:
    """Parse and run."""
    call_with_arguments(extract, "sgsd skills extract", arguments)


def extract(
    memories: str,
    out: str,
    writer: SkillWriter,
    evaluation: list[str] | None = None,
    limit: int | None = None,
    dry_run: bool = False,
) -> None:
    """Write candidate skills and mistakes from memories. Run again, it resumes where it stopped.

    Beside OUT, OUT.progress.jsonl holds what was answered so far, and OUT.rejects.jsonl what could not be used and why.

    Args:
        memories: what `sgsd skills collect` wrote.
        out: the file of candidates, in a bank's schema.
        writer: who writes: LanguageModelWriter, or ConventionWriter in the toy world.
        evaluation: files of evaluation problems (JSON Lines) that no item may give away.
        limit: take only the first so many memories; null takes all.
        dry_run: say what would be asked.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1; got {limit}")
    shown = load_memories(memories)[:limit]
    if not shown:
        raise ValueError(f"{memories} holds no memories; sgsd skills collect writes them")
    guard = LeakGuard([problem.text for file in evaluation or [] for problem in JsonlProblems(file).load()])
    if dry_run:
        print(f"would ask about {len(shown)} memories; nothing was asked or written")
        if hasattr(writer, "first_prompt"):
            say(f"the first prompt:\n\n{writer.first_prompt(shown)}")
        return
    path = Path(out)
    with Progress() as progress:
        task = progress.add_task("memories", total=len(shown))
        found = extract_candidates(
            shown, writer, guard, _beside(path, "progress"), on_memory=lambda: progress.advance(task)
        )
    bank = replace(
        found.candidates,
        metadata={
            "source": str(memories),
            "writer": type(writer).__name__,
            "num_memories": len(shown),
            "num_successes": sum(memory.is_success for memory in shown),
            "num_rejects": len(found.rejects),
        },
    )
    bank.save(path)
    rejects = "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in found.rejects)
    _beside(path, "rejects").write_text(rejects, encoding="utf-8")
    print(f"{out}: {len(bank.general_skills)} skills and {len(bank.common_mistakes)} mistakes of {len(shown)} memories")
    for reason, num in found.reject_counts.most_common(8):
        say(one_line(f"  {num} rejected: {reason}"))


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}.jsonl")
