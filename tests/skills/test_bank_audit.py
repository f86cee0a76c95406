"""The audit of a bank and what it prunes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from sgsd_lightning.cli import main
from sgsd_lightning.skills import EvidenceLedger, Mistake, Skill, SkillBank
from sgsd_lightning.skills.audit import PruneRules, audit_rows, load_audit, prune, save_audit
from sgsd_lightning.types import Observation


def bank() -> SkillBank:
    return SkillBank(
        general_skills=tuple(
            Skill(skill_id=f"gen_{n}", title=f"Skill {n}", principle="p", when_to_apply="w") for n in range(3)
        ),
        common_mistakes=tuple(
            Mistake(mistake_id=f"err_{n}", description=f"Mistake, {n}", why_it_happens="y", how_to_avoid="h")
            for n in range(2)
        ),
        metadata={"unfit_items": [{"id": "dyn_007", "text": "It went", "reason": "misleading", "step": 3}]},
    )


def ledger() -> EvidenceLedger:
    made = EvidenceLedger()
    seen = [("gen_0", "err_0", 1, 1)] * 40 + [("gen_1", "err_1", -1, -1)] * 38 + [("gen_1", "err_1", 1, 1)] * 2
    seen += [("dyn_007", "err_0", -1, 1)] * 4
    made.observe(
        9,
        [
            Observation(
                source_ids=(skill, mistake), outcome=outcome, polarity=polarity, stance_score=-0.5, gated_loss=0.25
            )
            for skill, mistake, polarity, outcome in seen
        ],
    )
    return made


def test_items_come_most_useful_first_then_pairs() -> None:
    rows = audit_rows(bank(), ledger())
    assert [row.item_id for row in rows] == [
        "gen_0",
        "err_0",
        "gen_2",
        "err_1",
        "gen_1",
        "dyn_007",
        "gen_0+err_0",
        "gen_1+err_1",
        "dyn_007+err_0",
    ]
    by_id = {row.item_id: row for row in rows}
    misled = by_id["gen_1"]
    assert (misled.num_uses, misled.wrong_misleading, misled.right_helpful) == (40, 38, 2)
    assert misled.misleading == pytest.approx(38 / 40)
    assert misled.usefulness == pytest.approx(2 / 40)
    assert misled.usefulness_low < misled.usefulness < misled.usefulness_high
    assert misled.polarity_counts == (2, 0, 38)
    assert (misled.mean_stance_score, misled.mean_gated_loss) == (pytest.approx(-0.5), pytest.approx(0.25))
    assert (by_id["dyn_007"].status, by_id["dyn_007"].text) == ("gone", "It went")
    assert by_id["gen_0+err_0"].text == "Skill 0 | Mistake, 0"
    assert by_id["gen_2"].num_uses == 0


@pytest.mark.parametrize("name", ["audit.csv", "audit.json"])
def test_an_audit_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    rows = audit_rows(bank(), ledger())
    save_audit(rows, tmp_path / name)
    assert load_audit(tmp_path / name) == rows


def test_a_bank_of_formulas_is_text_in_a_spreadsheet_and_comes_back(tmp_path: Path) -> None:
    named = {"gen_0": "=cmd|' /C calc'!A0", "gen_1": "-5", "err_0": "@x"}
    evil = replace(
        bank(),
        general_skills=tuple(
            replace(skill, skill_id=named.get(skill.skill_id, skill.skill_id), title="+1, =HYPERLINK()")
            for skill in bank().general_skills
        ),
    )
    rows = audit_rows(evil, ledger())
    save_audit(rows, tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as file:
        cells = [cell for row in csv.DictReader(file) for cell in row.values()]
    assert {"'=cmd|' /C calc'!A0", "-5", "'+1, =HYPERLINK()", "-0.5"} <= set(cells)
    assert not [cell for cell in cells if cell[:1] in {"=", "@", "+"}]
    assert load_audit(tmp_path / "audit.csv") == rows


def test_what_misleads_with_confidence_goes_and_what_was_hardly_used_stays() -> None:
    rows = audit_rows(bank(), ledger())
    smaller, dropped = prune(bank(), rows, PruneRules(misleading_above=0.5))
    assert [drop.item_id for drop in dropped] == ["gen_1", "err_1"]
    assert "misleading in 95% [" in dropped[0].reason
    assert [skill.skill_id for skill in smaller.general_skills] == ["gen_0", "gen_2"]
    assert prune(bank(), rows, PruneRules(misleading_above=0.95))[1] == []
    assert prune(bank(), rows, PruneRules(misleading_above=0.5, min_uses=41))[1] == []
    below = PruneRules(misleading_above=None, usefulness_below=0.5)
    assert [drop.item_id for drop in prune(bank(), rows, below)[1]] == ["gen_1", "err_1"]


def test_pruning_from_the_command_line_says_what_went_and_keeps_a_bank_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, audit, out = (str(tmp_path / name) for name in ("bank.json", "audit.csv", "small.json"))
    bank().save(source)
    save_audit(audit_rows(bank(), ledger()), Path(audit))
    assert main(["skills", "prune", source, "--audit", audit, "--misleading-above=0.5", "--out", out]) == 0
    told = capsys.readouterr().out
    assert "gen_1: misleading in 95%" in told
    assert "over 50% ('Skill 1')" in told
    assert len(SkillBank.load(out).items) == 3
    alone = replace(bank(), general_skills=bank().general_skills[1:2])
    alone.save(source)
    assert main(["skills", "prune", source, "--audit", audit, "--misleading-above=0.5", "--out", "no.json"]) == 2
    assert "no skills would be left" in capsys.readouterr().err


def renumbered() -> SkillBank:
    """The same items under other ids: gen_1 is what gen_0 was."""
    skills = bank().general_skills
    return replace(
        bank(),
        general_skills=tuple(replace(skill, skill_id=f"gen_{(number + 1) % 3}") for number, skill in enumerate(skills)),
    )


@pytest.mark.parametrize("has_digests", [True, False])
def test_rows_are_joined_with_items_by_what_they_say(has_digests: bool) -> None:
    rows = audit_rows(bank(), ledger())
    assert all(len(row.digest) == 16 for row in rows if row.kind != "pair" and row.status != "gone")
    if not has_digests:
        rows = [replace(row, digest="") for row in rows]
    _, dropped = prune(renumbered(), rows, PruneRules(misleading_above=0.5))
    assert [drop.item_id for drop in dropped] == ["gen_2", "err_1"]
    assert {skill.skill_id: skill.title for skill in renumbered().general_skills}["gen_2"] == "Skill 1"


def test_an_audit_of_another_bank_is_refused() -> None:
    rows = audit_rows(bank(), ledger())
    rules = PruneRules(misleading_above=0.5)
    other = tuple(replace(skill, title=f"Other {skill.title}") for skill in bank().general_skills)
    with pytest.raises(ValueError, match="another bank: its gen_0 is 'Skill 0', the bank's is 'Other Skill 0'"):
        prune(replace(bank(), general_skills=other), rows, rules)
    reworded = tuple(replace(skill, principle="another") for skill in bank().general_skills)
    with pytest.raises(ValueError, match="its gen_0 is 'Skill 0', the bank's is 'Skill 0', whose further text differs"):
        prune(replace(bank(), general_skills=reworded), rows, rules)
    strangers = SkillBank(general_skills=(replace(other[0], skill_id="x"),), common_mistakes=())
    with pytest.raises(ValueError, match="none of its 6 items, such as 'Skill 0', stands in this one"):
        prune(strangers, rows, rules)


def test_the_audit_of_a_first_hour_is_refused(shared_cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_cases / "newcomer"
    arguments = [str(folder / "bank.json"), "--audit", str(folder / "audit.csv"), "--misleading-above=0.1"]
    assert main(["skills", "prune", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "its err_003 is 'Crowded the page.', the bank's is 'Dropped the sign.'" in line


def test_evidence_of_items_that_went_knows_what_they_said() -> None:
    made = ledger()
    made.describe(bank().items)
    gone = replace(bank(), general_skills=bank().general_skills[:1])
    rows = {row.item_id: row for row in audit_rows(gone, EvidenceLedger.from_json(made.to_json()))}
    assert rows["gen_1"].status == "gone"
    assert rows["gen_1"].digest == bank().general_skills[1].digest != bank().general_skills[0].digest
    assert rows["gen_1+err_1"].digest == f"{rows['gen_1'].digest}+{rows['err_1'].digest}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,kind\ngen_0,skill\n", "row 1: the field 'text' is missing"),
        ("[1, 2]", "must be a list of rows"),
        ("[{]", "not JSON"),
        ('[{"item_id": NaN}]', r"audit\.json:1: NaN is no value of JSON"),
        ("item_id,kind\ngen_0,\xff\n", r"audit\.csv:2: not UTF-8 text"),
        ("item_id,kind\n" + "x" * 200_000 + ",skill\n", r"audit\.csv:\d+: not CSV \(field larger"),
    ],
)
def test_a_malformed_audit_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / ("audit.csv" if text.startswith("item") else "audit.json")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        load_audit(path)


def test_a_number_that_is_none_is_named_by_row_and_field(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    save_audit(audit_rows(bank(), ledger()), path)
    path.write_text(path.read_text().replace(",40,", ",many,", 1))
    with pytest.raises(ValueError, match="row 1: the field 'num_uses' must be a number; got 'many'"):
        load_audit(path)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    evidence_picture = pytest.importorskip("sgsd_lightning.reports.evidence_picture", reason="needs matplotlib")
    rows = [row for row in audit_rows(bank(), ledger()) if row.kind != "pair"]
    evidence_picture.draw_evidence(rows, tmp_path / "new" / "audit.png")
    assert (tmp_path / "new" / "audit.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no item of this bank was ever used"):
        evidence_picture.draw_evidence([row for row in rows if row.item_id == "gen_2"], tmp_path / "none.png")
