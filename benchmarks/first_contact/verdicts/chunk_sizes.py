"""Step 6: which sizes and which implementation are fastest, and what tables should say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.first_contact.verdict import Found, Verdict, per_cent

IF_BROKEN = "leave the sizes and dispatch.TABLE as arithmetic chose them"
NOTICEABLE = 0.03
"""A setting that gains less is not worth a change."""
TRITON, CUBLAS = "row blocks per group, scan by triton", "rows x columns of a chunk, scan by cublas"
PLACES = {
    TRITON: "GROUP_BYTES in triton_shared/configs.py",
    CUBLAS: "VOCAB_CHUNK and ROW_CHUNK in head/cublas.py",
    "logits of a block, JSD by cublas": "the forward bytes in divergence/cublas.py",
}
WIDTHS_OF_THE_TABLE = (2048, 4096)

Row = Mapping[str, Any]


def judge(found: Found) -> Verdict:
    rows: Sequence[Row] = found.get("rows", [])
    if not rows:
        return Verdict("skipped", "Nothing was timed.")
    changes = [*_faster_sizes(rows), *_table(rows)]
    shares = ", ".join(_shares(rows, found.get("bare", [])))
    about = f"The scan runs at {shares} of the bare product's rate" if shares else "The scan was timed"
    if changes:
        return Verdict("act", f"{about}; {'; '.join(changes)}.")
    return Verdict("good", f"{about}; no other size is {per_cent(NOTICEABLE)} faster and dispatch.TABLE is right.")


def _faster_sizes(rows: Sequence[Row]) -> list[str]:
    """A clause per choice and size whose shipped setting another one beats."""
    found = []
    for (sweep, size), group in _grouped(rows).items():
        shipped = next((row for row in group if row["is_shipped"]), None)
        if shipped is None or sweep not in PLACES:
            continue
        best = min(group, key=lambda row: row["ms"])
        gain = 1 - best["ms"] / shipped["ms"]
        if gain > NOTICEABLE:
            found.append(
                f"at {size} {best['setting']} is {per_cent(gain)} faster than {shipped['setting']} ({sweep}), so "
                f"change {PLACES[sweep]}"
            )
    return found


def _table(rows: Sequence[Row]) -> list[str]:
    """A clause per width at which cublas is faster than triton, which the table takes."""
    found = []
    for width in WIDTHS_OF_THE_TABLE:
        ours, library = (_best(rows, sweep, width) for sweep in (TRITON, CUBLAS))
        if ours is None or library is None:
            continue
        gain = 1 - library / ours
        if gain > NOTICEABLE:
            found.append(
                f"at D = {width} cublas takes {library:.3g} ms and triton {ours:.3g}, so dispatch.TABLE should take "
                f"cublas there, unless batch invariance is worth {per_cent(gain)}"
            )
    return found


def _shares(rows: Sequence[Row], bare: Sequence[Row]) -> list[str]:
    """``71 % (9216 x 2048)`` per size: the faster implementation's best."""
    found = []
    for product in bare:
        times = [row["ms"] for row in rows if row["size"] == product["size"] and row["sweep"] in (TRITON, CUBLAS)]
        if times:
            found.append(f"{per_cent(product['ms'] / min(times))} ({product['size']})")
    return found


def _best(rows: Sequence[Row], sweep: str, width: int) -> float | None:
    """Milliseconds of the fastest setting at the fewest rows of a width."""
    chosen = [row for row in rows if row["sweep"] == sweep and row["width"] == width]
    first = [row["ms"] for row in chosen if row["size"] == chosen[0]["size"]]
    return min(first, default=None)


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["sweep"], row["size"]), []).append(row)
    return groups
