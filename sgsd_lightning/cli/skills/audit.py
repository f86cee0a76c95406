"""`sgsd skills audit RUN`: what the verifier made of every item of a run's bank, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sgsd_lightning.cli.command_parser import CommandParser
from sgsd_lightning.cli.output import cell
from sgsd_lightning.skills.audit import AuditRow, audit_rows, save_audit

DESCRIPTION = """Every item of a run's bank, most useful first: how often its teachers were helpful, neutral and
misleading, by outcome, with Wilson intervals. Reads the evidence ledger in the run's newest checkpoint."""


def main(arguments: Sequence[str]) -> None:
    """Print the audit of a run; write it, and draw it, where asked to.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the checkpoint holds no bank.
    """
    parser = CommandParser(prog="sgsd skills audit", description=DESCRIPTION)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or one of its checkpoints")
    parser.add_argument("--out", type=Path, help="write all rows, of pairs too, as .csv or .json")
    parser.add_argument("--picture", type=Path, help="draw the items as .png (extra report)")
    parser.add_argument("--pairs", action="store_true", help="print pairs instead of items")
    parser.add_argument("--num", type=int, help="print only so many rows from either end")
    options = parser.parse_args(list(arguments))
    from sgsd_lightning.checkpoints.evidence import load_evidence

    bank, ledger = load_evidence(options.run)
    rows = audit_rows(bank, ledger)
    print_rows([row for row in rows if (row.kind == "pair") == options.pairs], options.num, ledger.step)
    if options.out:
        save_audit(rows, options.out)
        print(f"wrote {options.out}")
    if options.picture:
        from sgsd_lightning.reports.evidence_picture import draw_evidence

        draw_evidence([row for row in rows if row.kind != "pair"], options.picture)
        print(f"wrote {options.picture}")


def print_rows(rows: Sequence[AuditRow], num: int | None, step: int) -> None:
    """A table; with ``num``, the first and the last so many."""
    is_cut = num is not None and len(rows) > 2 * num
    shown = [*rows[:num], *rows[len(rows) - (num or 0) :]] if is_cut else rows
    cells = [_cells(row) for row in shown]
    table = Table(title=f"evidence after {step} steps (usefulness 1: always helpful, 0: misleading)")
    for column in ("item", "uses", "usefulness", "+ / 0 / -", "says"):
        table.add_column(column, justify="left" if column in ("item", "says") else "right", no_wrap=True)
    console = Console()
    numbers_width = sum(max(len(row[place]) for row in cells) + 3 for place in range(4)) if cells else 0
    for *numbers, says in cells:
        table.add_row(*map(cell, numbers), cell(_clipped(says, console.width - numbers_width - 4)))
    console.print(table)


def _cells(row: AuditRow) -> tuple[str, ...]:
    return (
        row.item_id,
        str(row.num_uses),
        f"{row.usefulness:.2f} [{row.usefulness_low:.2f}, {row.usefulness_high:.2f}]",
        "/".join(str(count) for count in row.polarity_counts),
        (row.text if row.status == "static" else f"({row.status}) {row.text}"),
    )


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)].rstrip() + "…"
