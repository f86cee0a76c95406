"""Lets the skill bank grow while training: experience in, items on probation out, the same bank on every process."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from sgsd_lightning.contexts import BankContexts
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.distributed.processes import broadcast_from_first, gather_from_processes
from sgsd_lightning.files import reason
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.skills import SkillBank, is_dynamic, is_on_probation
from sgsd_lightning.skills.growth.maintenance import BankUpdate, MaintenanceSettings, maintain
from sgsd_lightning.skills.growth.memories import Memory, to_memory
from sgsd_lightning.skills.growth.writer import SkillWriter
from sgsd_lightning.skills.leaks.guard import LeakGuard
from sgsd_lightning.training.run_callback import RunCallback, StepPhase
from sgsd_lightning.training.step_report import StepReport
from sgsd_lightning.types import Problem, StepRecord
from sgsd_lightning.types.arguments import require, require_at_least

log = logging.getLogger(__name__)

LATEST = "latest.json"
GRACE_SECONDS = 30.0
"""How long a writer may exceed its time limit before it is abandoned."""


class BankMaintenance(RunCallback):
    """Every ``every_n_steps`` optimizer steps, writes new items of the bank from the rollouts since the last update.

    Rollouts of all micro-batches and processes are pooled. When their success rate is below the threshold, the first
    process asks the writer for skills (from successes) and mistakes (from failures); new items serve on probation until
    evidence admits or drops them (`sgsd_lightning.skills.growth.maintenance`). Every process then uses the bank that
    the first one sends. If the writer fails or exceeds its time, training continues with the old bank and a warning.

    Writes ``skills/step-N.json`` after every update, ``skills/latest.json``, and ``skills/updates.jsonl`` with the
    added and dropped items and the reasons. On resume the bank of the checkpoint is used.

    Args:
        writer: drafts and merges items; None never changes the bank.
        every_n_steps: optimizer steps between two updates.
        success_threshold: no update if at least this share of the pooled rollouts succeeded.
        settings: how much an update may change, and when evidence admits an item.
        max_pooled: the most rollouts to pool; the newest are kept.
        time_limit_seconds: time limit of the writer per update.
    """

    phase = StepPhase.LEARN

    def __init__(
        self,
        writer: SkillWriter | None = None,
        every_n_steps: int = 25,
        success_threshold: float = 0.8,
        settings: MaintenanceSettings | None = None,
        max_pooled: int = 1024,
        time_limit_seconds: float = 300.0,
    ) -> None:
        require_at_least(1, "bank_maintenance.every_n_steps", every_n_steps)
        require(0 <= success_threshold <= 1, "bank_maintenance.success_threshold", "be in [0, 1]", success_threshold)
        require_at_least(1, "bank_maintenance.max_pooled", max_pooled)
        require(time_limit_seconds > 0, "bank_maintenance.time_limit_seconds", "be above 0", time_limit_seconds)
        self.writer = writer
        self.every_n_steps = every_n_steps
        self.success_threshold = success_threshold
        self.settings = settings or MaintenanceSettings()
        self.max_pooled = max_pooled
        self.time_limit_seconds = time_limit_seconds
        self._pool: list[Memory] = []
        self._guard = LeakGuard([])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse contexts without a bank, and load the evaluation problems, which no item may reveal.

        Raises:
            ValueError: for contexts that have no bank.
        """
        assert isinstance(pl_module, SelfDistillation)
        if self.writer is None or stage != "fit":
            return
        _bank_contexts(pl_module)
        self._guard = LeakGuard(problem.text for problem in _evaluation_problems(getattr(trainer, "datamodule", None)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the policy to the writer, and write the first bank: on resume that of the checkpoint."""
        assert isinstance(pl_module, SelfDistillation)
        if self.writer is None:
            return
        self.writer.attach(pl_module.model, pl_module.learner.tokenizer)
        bank = _bank_contexts(pl_module).bank
        if trainer.is_global_zero and bank is not None:
            _save(bank, _folder(trainer), [LATEST])

    def on_step(self, trainer: Trainer, module: LightningModule, report: StepReport) -> None:
        if self.writer is None:
            return
        assert isinstance(module, SelfDistillation)
        own = [memory for step in report.learner_steps for memory in _memories(step.record, report.step)]
        # every process holds the pool, so that any of them can write it into a checkpoint
        gathered = [memory for part in gather_from_processes(own) for memory in part]
        # in an order that does not tell how the step was split
        gathered.sort(key=lambda memory: memory.memory_id)
        self._pool = [*self._pool, *gathered][-self.max_pooled :]
        if report.step % self.every_n_steps == 0:
            with report.timer("bank"):
                self._update(trainer, module, self.writer, report.step)

    def state_dict(self) -> dict[str, Any]:
        return {"pool": [asdict(memory) for memory in self._pool]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pool = [Memory(**memory) for memory in state_dict["pool"]]

    def _update(self, trainer: Trainer, module: SelfDistillation, writer: SkillWriter, step: int) -> None:
        pool, self._pool = self._pool, []
        success_frac = sum(memory.is_success for memory in pool) / max(1, len(pool))
        module.log("bank/success_frac", success_frac, batch_size=1)
        if not pool or success_frac >= self.success_threshold:
            return
        contexts = _bank_contexts(module)
        assert contexts.bank is not None
        bank, ledger = contexts.bank, contexts.ledger

        def work() -> BankUpdate:
            deadline = time.monotonic() + self.time_limit_seconds
            return maintain(
                bank, ledger, pool, writer, self._guard, self.settings, step, deadline, contexts.num_contexts
            )

        result: BankUpdate | str | None = None
        with writer.session():
            if trainer.is_global_zero:
                limit = None if writer.computes_here else self.time_limit_seconds + GRACE_SECONDS
                result = _attempt(work, limit)
            result = broadcast_from_first(result)
        if not isinstance(result, BankUpdate):
            if trainer.is_global_zero:
                log.warning("step %d: the skill bank stays as it is: %s", step, result)
            module.log("bank/failed_updates", 1.0, batch_size=1)
            self._pool = pool  # for the next time
            return
        contexts.use(result.bank)
        for name, value in _metrics(result).items():
            module.log(f"bank/{name}", value, batch_size=1)
        if trainer.is_global_zero:
            _save(result.bank, _folder(trainer), [f"step-{step}.json", LATEST])
            _note(result, _folder(trainer), step)


def _bank_contexts(module: SelfDistillation) -> BankContexts:
    contexts = module.learner.contexts
    if not isinstance(contexts, BankContexts):
        raise ValueError(
            "bank_maintenance.writer needs model.init_args.contexts of class SkillPairs, or another that has a bank "
            f"(`contexts.BankContexts`); got {type(contexts).__name__}"
        )
    return contexts


def _evaluation_problems(data: Any) -> Iterator[Problem]:
    """Yield the problems of validation and test, of which training loads only the former."""
    if not isinstance(data, ProblemDataModule):
        return
    for split in ("validation", "test"):
        source = data.sources[split]
        if source is not None:
            yield from data.problems.get(split) or source.load()


def _memories(record: StepRecord, step: int) -> list[Memory]:
    """Return the memories of a micro-batch on this process; none if an earlier step used its rollouts."""
    if record.is_reused:
        return []
    found = [
        to_memory(judged, f"step-{step}/{judged.rollout.problem.problem_id}/{judged.rollout.sample_index}")
        for judged in record.judged
    ]
    return [memory for memory in found if memory is not None]


def _attempt(work: Callable[[], BankUpdate], seconds: float | None) -> BankUpdate | str:
    """Return the update, or why there is none, within ``seconds``; never raises.

    A writer may hang where no deadline reaches, as in a name lookup: it is then abandoned in its thread.
    """
    if seconds is None:
        return _run_safely(work)
    outcome: list[BankUpdate | str] = []
    thread = Thread(target=lambda: outcome.append(_run_safely(work)), name="skill-writer", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"the writer gave no answer within {seconds:.0f} s"


def _run_safely(work: Callable[[], BankUpdate]) -> BankUpdate | str:
    try:
        return work()
    except Exception as error:
        log.debug("the update of the skill bank failed", exc_info=True)
        return f"{type(error).__name__}: {error}"


def _metrics(update: BankUpdate) -> dict[str, float]:
    items = update.bank.items
    return {
        "skills": float(len(update.bank.general_skills)),
        "mistakes": float(len(update.bank.common_mistakes)),
        "dynamic": float(sum(is_dynamic(item.item_id) for item in items)),
        "on_probation": float(sum(is_on_probation(item) for item in items)),
        "added": float(len(update.added)),
        "admitted": float(len(update.admitted)),
        "dropped": float(len(update.dropped)),
        "drafts": float(update.num_drafts),
        "leaking_draft_frac": update.num_leaks / max(1, update.num_drafts),
        "failed_updates": 0.0,
    }


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "skills"


def _save(bank: SkillBank, folder: Path, names: Sequence[str]) -> None:
    """Write files for people and later runs. The run needs none of them, so a full disk only logs a warning."""
    try:
        for name in names:
            bank.save(folder / name)
    except OSError as error:
        log.warning("the skill bank could not be written to %s: %s", folder, reason(error))


def _note(update: BankUpdate, folder: Path, step: int) -> None:
    """Append the changes of an update, with reasons, to ``updates.jsonl``."""
    try:
        with (folder / "updates.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **_record(update)}, ensure_ascii=False) + "\n")
    except OSError as error:
        log.warning("the update of step %d could not be noted in %s: %s", step, folder, reason(error))


def _record(update: BankUpdate) -> dict[str, Any]:
    return {
        "added": update.added,
        "admitted": update.admitted,
        "dropped": [asdict(drop) for drop in update.dropped],
        "rejects": [asdict(reject) for reject in update.rejects],
        "num_drafts": update.num_drafts,
        "num_leaks": update.num_leaks,
    }
