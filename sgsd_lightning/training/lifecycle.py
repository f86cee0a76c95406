"""What happens to learners outside the step: loading, checks, the optimizer, and what a checkpoint holds of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sgsd_lightning.checkpoints.contents import CHECKPOINT_KEY, check_contents
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.distributed.processes import gather_from_processes
from sgsd_lightning.rollouts import Rollouter
from sgsd_lightning.rollouts.reuse import RolloutReuse
from sgsd_lightning.training.compatibility import check_parts, check_vocabulary
from sgsd_lightning.training.fsdp2 import check_strategy, shard
from sgsd_lightning.training.learner import Learner
from sgsd_lightning.training.optimization import configured
from sgsd_lightning.training.position_check import check_positions
from sgsd_lightning.training.preflight import check_problems
from sgsd_lightning.training.saved_weights import complete_weights, restorable_names
from sgsd_lightning.training.trainer_settings import check_trainer
from sgsd_lightning.verifiers import Verifier

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base
else:
    _Base = object


class LearnerLifecycle(_Base):
    """Lightning's hooks around the step, for a module with one learner whose model is ``self.model``."""

    learner: Learner
    learners: Mapping[str, Learner]
    evaluation_rollouts: Rollouter
    evaluation_verifier: Verifier
    reuse: RolloutReuse
    optimizer: Any
    lr_scheduler: Any
    _is_fitting = False
    _has_teacher = False
    _checked: tuple[ProblemDataModule, Sequence[str]] | None = None
    """The problems whose prompts the model must have positions for; None without a trainer's data module."""

    def setup(self, stage: str) -> None:
        """Load what is cheap and check what can be checked before the model is loaded."""
        self._is_fitting = stage == "fit"
        check_trainer(self.trainer, self._is_fitting)
        for learner in self.learners.values():
            check_strategy(self.trainer, learner.teacher)
            learner.load_tokenizer()
            if self._is_fitting:
                check_parts(learner)
                for part in learner.parts.values():
                    part.prepare()
        self.evaluation_rollouts.prepare()
        self.evaluation_verifier.prepare()
        splits = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        self._check_data(splits)

    def _check_data(self, splits: Sequence[str]) -> None:
        """Run the preflight over the data module's problems; a plain dataloader's are taken as they are."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ProblemDataModule):
            return
        self.reuse.check_data(data.updates_per_batch)
        for learner in self.learners.values():
            check_problems(data, splits, learner, self.evaluation_verifier)
        self._checked = data, splits

    def configure_model(self) -> None:
        """Load the model, once, when the strategy says where, and shard it if the strategy does."""
        learner = self.learner
        if not hasattr(self, "model"):
            self.model = learner.model = learner.source.load_model()
            if self.device_mesh is not None:
                shard(self.model, self.trainer.strategy)
            if self._checked is not None:
                check_positions(*self._checked, learner, self.evaluation_rollouts)
            check_vocabulary(learner.objective.score_request, self.model)
        if self._is_fitting and not self._has_teacher:
            learner.teacher.prepare(self.model)
            self._has_teacher = True

    def on_fit_start(self) -> None:
        """Settle how the head is computed, where the model now is, before the first rollout costs anything."""
        with self.trainer.strategy.precision_plugin.train_step_context():
            for learner in self.learners.values():
                learner.ahead.clear()
                learner.scorer.resolve_head(learner.model)
                for part in learner.parts.values():
                    part.attach(self.learners)

    def configure_optimizers(self) -> Any:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return configured(self.optimizer, self.lr_scheduler, parameters)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of every learner's parts; leave out weights that the policy's source gives back."""
        restorable = restorable_names(self.model, self.learner.teacher)
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name not in restorable
        }
        contents: dict[str, Any] = {
            "learners": {
                name: {part: dict(state) for part, entry in learner.parts.items() if (state := entry.state_dict())}
                for name, learner in self.learners.items()
            }
        }
        if self.reuse.updates_per_batch > 1:  # every process comes here
            contents["rollouts"] = gather_from_processes(self.reuse.state_dict())
        checkpoint[CHECKPOINT_KEY] = contents

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the parts their states, and see that the checkpoint holds the weights that this run needs.

        Raises:
            ValueError: when it is not one of ours, of an earlier edition, or of a policy with other weights.
        """
        contents = check_contents(checkpoint)
        self.configure_model()
        complete_weights(checkpoint, self.state_dict(), restorable_names(self.model, self.learner.teacher))
        if not self._is_fitting:  # evaluation and export do not use the training parts
            return
        for name, learner in self.learners.items():
            for part, state in contents["learners"].get(name, {}).items():
                learner.parts[part].load_state_dict(state)
        if "rollouts" in contents:
            self.reuse.load_state_dicts(contents["rollouts"], self.global_rank)
