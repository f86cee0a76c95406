"""Refuses to resume a checkpoint under another configuration, bank, data set or model than it was written with."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sgsd_lightning.checkpoints.identity import (
    Identity,
    contexts_digest,
    differences,
    frozen_weights_digest,
    parameters_digest,
    problem_fields_digest,
    problems_digest,
    prompts_digest,
)
from sgsd_lightning.checkpoints.reading import load_unsharded_part
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.encoding.templates import reads_the_clock
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.types import Problem, TeacherContext

log = logging.getLogger(__name__)

HOW_TO_ALLOW = "Start a new run folder, or resume all the same with --resume.allow_changes=true"


PROBLEM, CONTEXT = Problem(problem_id="any", text="1 + 1?", answer="2"), TeacherContext(text="Add.", weight=1.0)
"""What prompts are rendered of to compare them as the model reads them; the run's own texts are compared apart."""


class ResumeGuard(Callback):
    """Keeps in every checkpoint what the run's steps depend on, and compares it on resume.

    Settings, problems and bank are compared before the model is loaded, the model before the first step. How many
    processes share a micro-batch may change, but neither its problems nor ``trainer.accumulate_grad_batches``: the
    position in the data counts micro-batches.

    Args:
        allow_changes: warn of what differs, and resume.
    """

    def __init__(self, allow_changes: bool = False) -> None:
        self.allow_changes = allow_changes
        self.settings: Identity = {}
        """Of the configuration, set by the command line; a run from Python has none to compare."""
        self.origin: str | None = None
        """The checkpoint that `fit` resumes, set by whoever calls `fit`: the trainer knows it once it is loaded."""
        self._contents: Identity = {}
        self._saved: dict[str, Identity] = {}
        self._compared: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        assert isinstance(pl_module, SelfDistillation)
        pl_module.learner.contexts.prepare()
        self._contents = {
            "content of the teacher contexts (skill bank)": contexts_digest(pl_module.learner.contexts.state_dict()),
            "trainer.accumulate_grad_batches": str(trainer.accumulate_grad_batches),
        }
        shown = getattr(pl_module.learner.rollouter, "guidance", None)
        if shown is not None:
            shown.prepare()
            self._contents["content of the student's contexts (skill bank)"] = contexts_digest(shown.state_dict())
        self._contents |= _prompts_identity(pl_module.learner)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ProblemDataModule):
            problems = data.problems["train"]
            self._contents["content of the training problems"] = problems_digest(problems)
            self._contents["solutions and other fields of the training problems"] = problem_fields_digest(problems)
            self._contents["data.batch_size x processes"] = str(data.batch_size * trainer.world_size)
        if self.origin is not None:
            state = load_unsharded_part(Path(self.origin)).get("callbacks", {}).get(self.state_key)
            if state is not None:
                self.load_state_dict(state)
            self._compare()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Frozen weights are the source's both before and after a checkpoint is loaded."""
        assert isinstance(pl_module, SelfDistillation)
        self._contents["names and shapes of the model's weights"] = parameters_digest(pl_module.model)
        teacher = pl_module.learner.teacher
        frozen = frozen_weights_digest([pl_module.model, *([] if teacher.is_saved else [teacher])])
        if frozen is not None:
            self._contents["values of the frozen weights"] = frozen

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._compare()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path and not self._saved and trainer.is_global_zero:
            log.warning("%s does not say what it was written with, so nothing was compared", trainer.ckpt_path)
        self._compare()

    def state_dict(self) -> dict[str, Any]:
        return {"settings": json.dumps(self.settings), "contents": json.dumps(self._contents)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = {part: json.loads(state_dict[part]) for part in ("settings", "contents")}

    def _compare(self) -> None:
        """Whatever both sides know by now and was not compared before."""
        if not self._saved:
            return
        settings, contents = self._saved["settings"], self._saved["contents"]
        names = settings.keys() | self.settings.keys() if settings and self.settings else set()
        found = differences(settings, self.settings, names - self._compared)
        shared = contents.keys() & self._contents.keys()
        found += differences(contents, self._contents, shared - self._compared)
        self._compared |= names | shared
        if not found:
            return
        listed = "\n".join(f"  {line}" for line in found)
        if not self.allow_changes:
            raise ValueError(f"the checkpoint was written with something else:\n{listed}\n{HOW_TO_ALLOW}")
        log.warning("this run resumes a checkpoint that was written with something else:\n%s", listed)


def _prompts_identity(learner: Learner) -> Identity:
    """What the chat template, which may write the date, and the tokenizer make of a prompt of each role."""
    learner.load_tokenizer()
    prompts, tokenizer = learner.prompts, learner.tokenizer
    rendered = [prompts.student(tokenizer, PROBLEM), prompts.teacher(tokenizer, PROBLEM, CONTEXT)]
    messages, role = prompts.student_prompt(PROBLEM)
    is_dated = reads_the_clock(tokenizer, messages, prompts.render_args(role))
    return {
        "chat template": contexts_digest({"chat_template": tokenizer.chat_template}),
        "rendered prompts": prompts_digest(rendered) + (" (the chat template reads the clock)" if is_dated else ""),
    }
