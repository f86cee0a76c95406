"""`sgsd skills merge`: a bank from candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sgsd_lightning.cli.skills.arguments import call_with_arguments
from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.skills.growth.merge import MergeSettings
from sgsd_lightning.skills.growth.merge_bank import METADATA_KEY, merge_candidates
from sgsd_lightning.skills.growth.writer import SkillWriter


def main(arguments: Sequence[str]) -> None:
    """Parse and run."""
    call_with_arguments(merge, "sgsd skills merge", arguments)


def merge(
    candidates: str,
    out: str,
    writer: SkillWriter | None = None,
    settings: MergeSettings | None = None,
    dry_run: bool = False,
) -> None:
    """Unite items that say the same: duplicates by their words, the rest by a writer, group by group.

    While it works, OUT.partial.json holds what was reached; run again, it resumes there.

    Args:
        candidates: a file in a bank's schema: candidates, or a bank.
        out: the bank.
        writer: who unites; null removes duplicates alone.
        settings: how large groups are, and what a duplicate is.
        dry_run: say how many items duplicates alone would leave, and how many groups a writer would be shown.
    """
    bank = SkillBank.load(candidates)
    settings = settings or MergeSettings()
    if dry_run:
        _say(merge_candidates(bank, None, settings))
        print("nothing was asked or written")
        return
    path = Path(out)
    partial = path.with_name(f"{path.name}.partial.json")
    begun = SkillBank.load(partial) if writer is not None and partial.exists() else bank
    rejects = path.with_name(f"{path.name}.rejects.jsonl")
    rejects.unlink(missing_ok=True)

    def note(reject: Any) -> None:
        with rejects.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(reject), ensure_ascii=False) + "\n")

    def keep(reached: SkillBank) -> None:
        reached.save(partial)
        print(f"\r{len(reached.general_skills)} skills, {len(reached.common_mistakes)} mistakes", end="", flush=True)

    merged = merge_candidates(begun, writer, settings, source=candidates, on_progress=keep, on_reject=note)
    merged.save(path)
    partial.unlink(missing_ok=True)
    print("\r", end="")
    _say(merged)
    print(f"wrote {out}")


def _say(merged: SkillBank) -> None:
    for name in ("general_skills", "common_mistakes"):
        record = merged.metadata[METADATA_KEY][name]
        print(f"{name}: {record['num_in']} -> {record['num_out']} (stopped: {record['stopped']})")
        for layer in record["layers"]:
            print(
                f"  {layer['num_in']} -> {layer['num_out']}: {layer['num_groups']} groups shown to the writer, "
                f"{layer['num_duplicates']} duplicates"
            )
