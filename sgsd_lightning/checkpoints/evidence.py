"""Reads the skill bank and its evidence from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from sgsd_lightning.checkpoints.contents import part_state
from sgsd_lightning.checkpoints.folders import is_sharded_checkpoint, recovered
from sgsd_lightning.checkpoints.reading import load_unsharded_part
from sgsd_lightning.seeding import DEFAULT_POLICY
from sgsd_lightning.skills.bank import SkillBank
from sgsd_lightning.skills.evidence import EvidenceLedger


def load_evidence(run: Path) -> tuple[SkillBank, EvidenceLedger]:
    """Read the bank and the ledger of a run's newest checkpoint, or of a given checkpoint.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint holds no bank.
    """
    is_checkpoint = run.is_file() or is_sharded_checkpoint(run)
    path = run if is_checkpoint else recovered(run / "checkpoints" / "last.ckpt")
    if not path.exists():
        raise FileNotFoundError(f"{run}: neither a checkpoint nor the folder of a run (there is no {path})")
    state = part_state(load_unsharded_part(path), DEFAULT_POLICY, "contexts")
    if "bank" not in state or "ledger" not in state:
        raise ValueError(f"{path} holds no skill bank with evidence; its run had other contexts than SkillPairs")
    return SkillBank.from_json(state["bank"], where=f"{path}: skill bank"), EvidenceLedger.from_json(state["ledger"])
