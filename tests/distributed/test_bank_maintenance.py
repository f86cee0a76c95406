"""A bank that grows on 2 processes: the same on both, the same as on one, and the same after a resume."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sgsd_lightning.callbacks import BankMaintenance, RunCheckpoint
from sgsd_lightning.callbacks import bank_maintenance as callback
from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.language_models import TrainedPolicy
from sgsd_lightning.skills import EvidenceSettings, Mistake, Skill
from sgsd_lightning.skills.admission import AdmissionSettings
from sgsd_lightning.skills.growth import LanguageModelWriter
from sgsd_lightning.skills.growth.kind_update import MaintenanceSettings
from sgsd_lightning.skills.growth.memories import Memory
from sgsd_lightning.skills.growth.writer import Draft, SkillWriter, Written
from sgsd_lightning.training.fsdp2 import FSDP2Strategy
from sgsd_lightning.types import SamplingSettings
from tests.support.runs import Run, data_of, on_processes, tiny_run, whole

STOP, END, EVERY = 3, 6, 2
WORDS = ["apples", "bridges", "clouds", "dragons", "engines"]


class ProblemWriter(SkillWriter):
    """Names something about each problem; ``fault`` makes it fail or hang on the first process."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def extract(self, memories: Sequence[Memory], deadline: float | None = None) -> Iterator[Written]:
        assert int(os.environ.get("LOCAL_RANK", 0)) == 0, "only the first process writes"
        if self.fault == "raises":
            raise RuntimeError("the endpoint is down")
        if self.fault == "hangs":
            time.sleep(60)
        for memory in memories:
            word = WORDS[sum(memory.problem_id.encode()) % len(WORDS)]
            kind: type[Skill] | type[Mistake] = Skill if memory.is_success else Mistake
            names = ("title", "principle", "when_to_apply") if kind is Skill else _MISTAKE
            draft = Draft(kind=kind, texts=dict.fromkeys(names, f"look at {word}"), sources=(memory.memory_id,))
            yield Written(sources=(memory.memory_id,), drafts=(draft,))

    def merge(self, items: Sequence[Skill] | Sequence[Mistake], deadline: float | None = None) -> Written:
        return Written(sources=tuple(item.item_id for item in items))


_MISTAKE = ("description", "why_it_happens", "how_to_avoid")


def bank_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    skills = [{"skill_id": f"gen_{i}", "title": f"T{i}", "principle": f"P{i}", "when_to_apply": "W"} for i in range(2)]
    mistakes = [{"mistake_id": f"err_{i}", **dict.fromkeys(_MISTAKE, f"D{i}")} for i in range(2)]
    path = folder / "bank.json"
    path.write_text(json.dumps({"general_skills": skills, "common_mistakes": mistakes}))
    return path


def train(
    name: str, world_size: int, folder: Path, steps: int = END, resume: Path | None = None, fault: str = ""
) -> dict[str, Any]:
    """One run; what its bank, its ledger and its weights came to on this process."""
    is_fsdp2 = name.startswith("fsdp2")
    policy = TrainedPolicy(sampling=SamplingSettings(max_new_tokens=4), batch_size=4)
    writer: SkillWriter = LanguageModelWriter(policy) if "policy" in name else ProblemWriter(fault)
    maintenance = BankMaintenance(
        writer,
        every_n_steps=EVERY,
        success_threshold=1.0,
        settings=MaintenanceSettings(max_new=2, admission=AdmissionSettings(min_uses=4, max_uses=20)),
        time_limit_seconds=0.5 if fault == "hangs" else 60,
    )
    checkpoint = RunCheckpoint(dirpath=str(folder / f"{name}-{steps}"), every_n_train_steps=STOP)
    contexts = SkillPairs(
        str(bank_file(folder / f"rank-{os.environ.get('LOCAL_RANK', 0)}")),
        num_contexts=2,
        evidence=EvidenceSettings(weight=4.0, probation_frac=0.5, half_life_steps=4.0),
    )
    run = Run(
        module=lambda: {"contexts": contexts, "group_size": 2},
        trainer=lambda: {"enable_checkpointing": True},
        drop_last=False,
    )
    strategies: dict[str, Any] = {"strategy": FSDP2Strategy(timeout_minutes=1.0) if is_fsdp2 else "ddp"}
    module, trainer, recorder = tiny_run(
        run,
        world_size,
        folder / name,
        max_steps=steps,
        callbacks=[maintenance, checkpoint],
        **(strategies if world_size > 1 else {}),
    )
    trainer.fit(module, datamodule=data_of(run, world_size), ckpt_path=resume)
    assert contexts.bank is not None
    return {
        "bank": contexts.bank.to_json(),
        "ledger": contexts.ledger.to_json(),
        "pool": maintenance.state_dict()["pool"],
        "weights": {key: whole(value) for key, value in module.model.named_parameters()},
        "losses": recorder.losses,
        "metrics": recorder.metrics,
    }


def task(world_size: int, folder: Path) -> None:
    """All runs of two processes."""
    callback.GRACE_SECONDS = 0.5
    results = {"ddp": train("ddp", world_size, folder)}
    train("stopped", world_size, folder, steps=STOP)
    results["resumed"] = train("resumed", world_size, folder, resume=folder / f"stopped-{STOP}" / "last.ckpt")
    for fault in ("raises", "hangs"):
        results[fault] = train(fault, world_size, folder, fault=fault)
    for name in ("ddp policy", "fsdp2 policy"):
        results[name] = train(name, world_size, folder)
    torch.save(results, folder / f"results-{os.environ.get('LOCAL_RANK', 0)}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the results of both processes are."""
    folder: Path = tmp_path_factory.mktemp("maintenance")
    on_processes(2, task, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(2)]


def test_both_processes_hold_the_same_bank_and_the_same_evidence(results: list[dict[str, Any]]) -> None:
    for name in results[0]:
        assert results[0][name]["bank"] == results[1][name]["bank"], name
        assert results[0][name]["ledger"] == results[1][name]["ledger"], name
    bank = json.loads(results[0]["ddp"]["bank"])
    dynamic = [item["skill_id"] for item in bank["general_skills"] if item["skill_id"].startswith("dyn_")]
    assert dynamic
    assert bank["metadata"]["last_dynamic_id"] >= len(dynamic)


def test_one_process_comes_to_the_same_bank_and_weights(results: list[dict[str, Any]], tmp_path: Path) -> None:
    alone, two = train("alone", 1, tmp_path), results[0]["ddp"]
    assert alone["bank"] == two["bank"]
    assert alone["losses"] == pytest.approx(two["losses"], abs=1e-6)
    for key, value in alone["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, atol=1e-6, rtol=0)
    counts = [{key: row[0] for key, row in json.loads(run["ledger"])["items"].items()} for run in (alone, two)]
    assert counts[0] == counts[1]


def test_a_resumed_run_has_the_bank_the_evidence_and_the_weights_of_the_uninterrupted_one(
    results: list[dict[str, Any]],
) -> None:
    straight, resumed = results[0]["ddp"], results[0]["resumed"]
    for part in ("bank", "ledger", "pool"):
        assert resumed[part] == straight[part], part
    for key, value in straight["weights"].items():
        assert torch.equal(resumed["weights"][key], value), key


@pytest.mark.parametrize("fault", ["raises", "hangs"])
def test_training_goes_on_with_the_old_bank_when_the_writer_fails(
    fault: str, results: list[dict[str, Any]], folder: Path
) -> None:
    result = results[0][fault]
    assert len(result["losses"]) == END
    assert result["metrics"]["bank/failed_updates"] == 1.0
    assert "dyn_" not in result["bank"]
    assert [path.name for path in (folder / fault / "skills").iterdir()] == ["latest.json"]


def test_the_policy_writes_under_fsdp2_as_under_ddp(results: list[dict[str, Any]]) -> None:
    """A random model has nothing to say; what counts is that nobody waits and that training is the same."""
    ddp, sharded = results[0]["ddp policy"], results[0]["fsdp2 policy"]
    assert sharded["metrics"]["bank/failed_updates"] == 0.0
    assert sharded["bank"] == ddp["bank"]
    for key, value in ddp["weights"].items():
        torch.testing.assert_close(sharded["weights"][key], value, atol=1e-6, rtol=0)


def test_every_update_leaves_a_snapshot_the_latest_bank_and_a_line_of_what_happened(
    folder: Path, results: list[dict[str, Any]]
) -> None:
    written = folder / "ddp" / "skills"
    lines = [json.loads(line) for line in (written / "updates.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert set(steps) <= set(range(EVERY, END + 1, EVERY))
    assert {path.name for path in written.iterdir()} == {
        "latest.json",
        "updates.jsonl",
        *(f"step-{step}.json" for step in steps),
    }
    assert (written / "latest.json").read_text() == results[0]["ddp"]["bank"]
    assert lines[0]["added"]
