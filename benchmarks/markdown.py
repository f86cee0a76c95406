"""Tables that read well both in a terminal and in a README."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A markdown table with its columns padded to one width.

    Args:
        header: Names of the columns.
        rows: Cells, as many per row as there are columns.
        right: Indices of the columns that are set flush right, as numbers are.
    """
    widths = [max(3, *(len(row[column]) for row in [header, *rows])) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    ruler = ["-" * (width - 1) + (":" if column in right else "-") for column, width in enumerate(widths)]
    return "\n".join([line(header), line(ruler), *map(line, rows)])
