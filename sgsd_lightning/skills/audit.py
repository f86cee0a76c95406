"""The audit of a bank: one row per item and per pair with its evidence, and a bank pruned by it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from sgsd_lightning.metrics.intervals import WilsonInterval
from sgsd_lightning.skills.admission import UNFIT, Dropped
from sgsd_lightning.skills.bank import Item, Mistake, Skill, SkillBank
from sgsd_lightning.skills.evidence import (
    HELPFUL,
    MISLEADING,
    NEUTRAL,
    PAIR_SEPARATOR,
    RIGHT,
    WRONG,
    EvidenceLedger,
    Tally,
)
from sgsd_lightning.skills.selection import STATUS
from sgsd_lightning.texts.shown import quote_cells, read_cell
from sgsd_lightning.texts.strict_json import read_json, read_text, shorten
from sgsd_lightning.types.arguments import require, require_at_least

Kind = Literal["skill", "mistake", "pair"]
GONE = "gone"
"""The status of an item that has evidence but is no longer in the bank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRow:
    """One item or pair. Counts are rollouts; rates weigh recent rollouts more where evidence fades."""

    item_id: str
    kind: Kind
    text: str
    """A skill's title, a mistake's description, or both for a pair."""
    status: str
    """``static``, ``probation``, ``admitted`` or ``gone``."""
    num_uses: int
    usefulness: float
    """In [0, 1]: 1 always helpful, 0 always misleading, neutral counts half."""
    usefulness_low: float
    usefulness_high: float
    misleading: float
    misleading_low: float
    misleading_high: float
    right_helpful: int
    right_neutral: int
    right_misleading: int
    wrong_helpful: int
    wrong_neutral: int
    wrong_misleading: int
    mean_stance_score: float
    """Nats per token."""
    mean_gated_loss: float
    """Nats per token."""
    digest: str = ""
    """Of what the item says; of a pair's two, joined by ``+``. "" in audits of earlier versions."""

    @property
    def polarity_counts(self) -> tuple[int, int, int]:
        """(helpful, neutral, misleading), summed over both outcomes."""
        return (
            self.right_helpful + self.wrong_helpful,
            self.right_neutral + self.wrong_neutral,
            self.right_misleading + self.wrong_misleading,
        )


def audit_rows(bank: SkillBank, ledger: EvidenceLedger) -> list[AuditRow]:
    """Make the rows: items, then pairs, each by falling usefulness; unused items, at 0.5, are in the middle."""
    items = {item.item_id: item for item in bank.items}
    known = [*items, *(item_id for item_id in ledger.items if item_id not in items)]
    gone = {entry["id"]: str(entry["text"]) for entry in bank.metadata.get(UNFIT, ())}
    rows = [_item_row(item_id, items.get(item_id), gone.get(item_id), ledger) for item_id in known]
    pairs = [_pair_row(key, tally, items, ledger) for key, tally in ledger.pairs.items() if PAIR_SEPARATOR in key]
    return [*sorted(rows, key=_worth), *sorted(pairs, key=_worth)]


def save_audit(rows: Sequence[AuditRow], path: Path) -> None:
    """Write rows as CSV or JSON, by the suffix of the path."""
    if path.suffix == ".json":
        text = json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [entry.name for entry in fields(AuditRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(quote_cells(asdict(row)) for row in rows)
        text = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def load_audit(path: Path) -> list[AuditRow]:
    """Read what :func:`save_audit` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, the row and the field of the first thing that is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"audit file {path} does not exist; sgsd skills audit RUN --out {path} writes one")
    records = read_json(path) if path.suffix == ".json" else _csv_records(path)
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise ValueError(f"{path}: an audit must be a list of rows")
    return [_parse_row(record, f"{path}: row {number}") for number, record in enumerate(records, start=1)]


def _csv_records(path: Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        return [{name: read_cell(v) if isinstance(v, str) else v for name, v in row.items()} for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV ({error})") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneRules:
    """Which items to drop by an audit; static items too, since a person asks for it."""

    misleading_above: float | None = 0.5
    """Drop items whose misleading rate is above this with confidence; None drops none for it."""
    usefulness_below: float | None = None
    """Drop items whose usefulness is below this with confidence; None drops none for it."""
    min_uses: int = 30
    """Keep items with fewer uses."""

    def __post_init__(self) -> None:
        for name in ("misleading_above", "usefulness_below"):
            bound = getattr(self, name)
            require(bound is None or 0 <= bound <= 1, f"prune.{name}", "be in [0, 1]", bound)
        require_at_least(0, "prune.min_uses", self.min_uses)


def prune(bank: SkillBank, rows: Iterable[AuditRow], rules: PruneRules) -> tuple[SkillBank, list[Dropped]]:
    """A smaller bank, and what went with the reason. Rows are joined with items by what they say, not by their ids.

    Raises:
        ValueError: if the audit is of another bank: no row is of what an item of this bank says, or one has an item's
            id and another text.
    """
    found = _rows_of_items(bank, [row for row in rows if row.kind != "pair"])
    dropped = [
        Dropped(item_id=item.item_id, reason=reason)
        for item in bank.items
        if (row := found.get(item.item_id)) is not None and (reason := _reason_to_prune(row, rules)) is not None
    ]
    gone = {drop.item_id for drop in dropped}

    def kept(items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(item for item in items if item.item_id not in gone)

    return replace(bank, general_skills=kept(bank.general_skills), common_mistakes=kept(bank.common_mistakes)), dropped


def _rows_of_items(bank: SkillBank, rows: Sequence[AuditRow]) -> dict[str, AuditRow]:
    """By the id of the bank's item that says what the row is of."""
    by_id = {item.item_id: item for item in bank.items}
    by_digest = {item.digest: item.item_id for item in bank.items}
    headlines = Counter(item.headline for item in bank.items)
    by_headline = {item.headline: item.item_id for item in bank.items}
    found: dict[str, AuditRow] = {}
    for row in rows:
        item = by_id.get(row.item_id)
        if item is not None and (row.digest == item.digest if row.digest else row.text == item.headline):
            found[row.item_id] = row
            continue
        elsewhere = by_digest.get(row.digest) if row.digest else by_headline.get(row.text)
        if elsewhere is not None and (row.digest or headlines[row.text] == 1):
            found.setdefault(elsewhere, row)
        elif item is not None:
            raise ValueError(
                f"the audit is of another bank: its {row.item_id} is {_quoted(row.text)}, the bank's is "
                f"{_quoted(item.headline)}{_same_headline(row, item)}. Audit a run with this bank, or prune the bank "
                "of the audited run"
            )
    if rows and not found:
        raise ValueError(
            f"the audit is of another bank: none of its {len(rows)} items, such as {_quoted(rows[0].text)}, stands in "
            "this one. Audit a run with this bank, or prune the bank of the audited run"
        )
    return found


def _same_headline(row: AuditRow, item: Skill | Mistake) -> str:
    return ", whose further text differs" if row.text == item.headline else ""


def _quoted(text: str) -> str:
    return shorten(text, 60)


def _reason_to_prune(row: AuditRow, rules: PruneRules) -> str | None:
    if row.num_uses < rules.min_uses:
        return None
    if rules.misleading_above is not None and row.misleading_low > rules.misleading_above:
        return (
            f"misleading in {row.misleading:.0%} [{row.misleading_low:.0%}, {row.misleading_high:.0%}] "
            f"of {row.num_uses} uses, over {rules.misleading_above:.0%}"
        )
    if rules.usefulness_below is not None and row.usefulness_high < rules.usefulness_below:
        return (
            f"usefulness {row.usefulness:.2f} [{row.usefulness_low:.2f}, {row.usefulness_high:.2f}] "
            f"after {row.num_uses} uses, under {rules.usefulness_below:.2f}"
        )
    return None


def _item_row(item_id: str, item: Skill | Mistake | None, said: str | None, ledger: EvidenceLedger) -> AuditRow:
    kind: Kind = "mistake" if isinstance(item, Mistake) or (item is None and item_id.startswith("err_")) else "skill"
    status = GONE if item is None else str(item.extra.get(STATUS, "static"))
    text = said if item is None and said else _headline(item)
    digest = ledger.digests.get(item_id, "") if item is None else item.digest
    return _row(item_id, kind, text, status, ledger.items.get(item_id, Tally()), ledger, digest)


def _pair_row(key: str, tally: Tally, items: Mapping[str, Skill | Mistake], ledger: EvidenceLedger) -> AuditRow:
    ids = key.split(PAIR_SEPARATOR)
    members = [items.get(item_id) for item_id in ids]
    status = GONE if None in members else "static"
    digests = [
        ledger.digests.get(item_id, "") if item is None else item.digest
        for item_id, item in zip(ids, members, strict=True)
    ]
    text = " | ".join(_headline(item) for item in members)
    return _row(key, "pair", text, status, tally, ledger, PAIR_SEPARATOR.join(digests))


def _row(
    item_id: str, kind: Kind, text: str, status: str, tally: Tally, ledger: EvidenceLedger, digest: str
) -> AuditRow:
    usefulness: WilsonInterval = tally.usefulness(ledger.confidence, ledger.fade(tally))
    misleading: WilsonInterval = tally.misleading(ledger.confidence, ledger.fade(tally))
    return AuditRow(
        item_id=item_id,
        kind=kind,
        text=text,
        status=status,
        num_uses=tally.num_uses,
        usefulness=usefulness.value,
        usefulness_low=usefulness.low,
        usefulness_high=usefulness.high,
        misleading=misleading.value,
        misleading_low=misleading.low,
        misleading_high=misleading.high,
        right_helpful=tally.count(HELPFUL, RIGHT),
        right_neutral=tally.count(NEUTRAL, RIGHT),
        right_misleading=tally.count(MISLEADING, RIGHT),
        wrong_helpful=tally.count(HELPFUL, WRONG),
        wrong_neutral=tally.count(NEUTRAL, WRONG),
        wrong_misleading=tally.count(MISLEADING, WRONG),
        mean_stance_score=tally.mean_stance_score,
        mean_gated_loss=tally.mean_gated_loss,
        digest=digest,
    )


def _headline(item: Skill | Mistake | None) -> str:
    if item is None:
        return "(no longer in the bank)"
    return item.headline


def _worth(row: AuditRow) -> tuple[float, str]:
    return -row.usefulness, row.item_id


def _parse_row(record: Mapping[str, Any], where: str) -> AuditRow:
    values: dict[str, Any] = {}
    for entry in fields(AuditRow):
        if entry.name not in record and entry.default is MISSING:
            raise ValueError(
                f"{where}: the field {entry.name!r} is missing; sgsd skills audit RUN --out FILE writes it"
            )
        found = record.get(entry.name)
        try:
            values[entry.name] = _converted(found, str(entry.type))
        except (TypeError, ValueError):
            raise ValueError(f"{where}: the field {entry.name!r} must be a number; got {shorten(found)}") from None
    return AuditRow(**values)


def _converted(found: Any, kind: str) -> str | int | float:
    if kind == "int":
        return int(found)
    if kind != "float":
        return "" if found is None else str(found)
    number = float(found)
    if not math.isfinite(number):
        raise ValueError
    return number
