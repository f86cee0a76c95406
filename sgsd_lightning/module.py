"""The training step of on-policy self-distillation, as a LightningModule: where the parts of the loop meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim import AdamW

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.metrics.timing import PhaseTimer
from sgsd_lightning.objectives import Objective
from sgsd_lightning.policy import LiveTeacher, PolicySource, PolicyView
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.rollouts import Rollouter, SingleTurn
from sgsd_lightning.rollouts.reuse import RolloutReuse
from sgsd_lightning.training.contracts import judge
from sgsd_lightning.training.learner import Learner, ScoringSettings
from sgsd_lightning.training.lifecycle import LearnerLifecycle
from sgsd_lightning.training.run_callback import run_callbacks
from sgsd_lightning.training.step_report import StepReport, StepWindow
from sgsd_lightning.training.validation import EvaluationSettings, SampledEvaluation
from sgsd_lightning.types import JudgedRollout, Problem, ProblemBatch
from sgsd_lightning.verifiers import MathAnswer, Verifier

PROGRESS_BAR_METRICS = {"objective/loss", "rollout/reward_mean", "objective/helpful_frac"}


class SelfDistillation(LearnerLifecycle, LightningModule):
    """A policy that learns from itself under other contexts, on its own rollouts.

    A method is a choice of parts; each is named in YAML by ``class_path`` and ``init_args``.

    Args:
        policy: where the model and its tokenizer come from.
        contexts: what the teachers see.
        objective: what is made of the scores.
        verifier: what says whether a completion is right.
        teacher_weights: which weights teach: by default the student's own, live.
        rollouts: who speaks when: engine, sampling, group size, what the student is shown.
        sampled_under: what the sampler sees of the weights: by default the weights themselves.
        scoring: how sampled ids are scored.
        prompts: prompt texts and chat-template arguments.
        evaluation: how ``validate`` and ``test`` sample and judge.
        updates_per_batch: optimizer steps on the same rollouts, for objectives that weigh how probable a token is now
            against when it was sampled, as `PolicyGradient` does. The data module needs the same number, which
            the command line does.
        optimizer: from trainable parameters to an optimizer.
        lr_scheduler: from the optimizer to a scheduler that is advanced every optimizer step.
        seed: what every rollout's randomness derives from.
    """

    def __init__(
        self,
        policy: PolicySource,
        contexts: ContextBuilder,
        objective: Objective,
        verifier: Verifier | None = None,
        teacher_weights: PolicyView | None = None,
        rollouts: Rollouter | None = None,
        sampled_under: PolicyView | None = None,
        scoring: ScoringSettings | None = None,
        prompts: ChatPrompts | None = None,
        evaluation: EvaluationSettings | None = None,
        updates_per_batch: int = 1,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=5e-6, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.teacher_weights = teacher_weights or LiveTeacher()
        self.timer = PhaseTimer()
        self.learner = Learner(
            source=policy,
            rollouter=rollouts or SingleTurn(),
            contexts=contexts,
            objective=objective,
            verifier=verifier or MathAnswer(),
            prompts=prompts or ChatPrompts(),
            teacher=self.teacher_weights,
            sampled_under=sampled_under,
            scoring=scoring or ScoringSettings(),
            seed=seed,
            version=lambda: self.global_step,
            timer=self.timer,
        )
        self.learners: Mapping[str, Learner] = {self.learner.name: self.learner}
        self.reuse = RolloutReuse(updates_per_batch)
        self.evaluation = evaluation or EvaluationSettings()
        self.evaluation_rollouts = self.evaluation.rollouter(self.learner.rollouter.engine)
        self.evaluation_verifier = self.evaluation.verifier or self.learner.verifier
        self.sampled_evaluation = SampledEvaluation(self.evaluation_rollouts.group_size)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self._window = StepWindow(self.learners, self.timer)
        self._report: StepReport | None = None
        # on_load_checkpoint says in its own words what is missing
        self.strict_loading = False

    def training_step(self, problems: list[Problem], batch_idx: int) -> Tensor:
        """One micro-batch: sample, judge, teach, score, objective, loss; the same for every method."""
        learners, micro_batches = self.learners, self.trainer.accumulate_grad_batches
        restore = {name: learner.render for name, learner in learners.items()}
        kept = self.reuse.find(problems, batch_idx, micro_batches, restore)
        taught = kept
        if taught is None:
            judged = {name: who.judge(who.sample_ahead(problems, self.global_step)) for name, who in learners.items()}
            taught = {name: who.teach(judged[name], judged) for name, who in learners.items()}
        self.reuse.keep(taught, batch_idx, micro_batches)
        steps = {name: who.loss(taught[name], is_reused=kept is not None) for name, who in learners.items()}
        return self._window.add(steps, ProblemBatch.weight_of(problems))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Forget what is left of the last step, and free its gradients before rollouts need the memory."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            for learner in self.learners.values():
                learner.ahead.clear()
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad(set_to_none=True)

    def on_before_backward(self, loss: Tensor) -> None:
        self.timer.begin("backward")

    def on_after_backward(self) -> None:
        self.timer.end("backward")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.timer.begin("optimizer")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let teacher weights and contexts follow."""
        super().optimizer_step(*args, **kwargs)
        self.timer.end("optimizer")
        # the trainer counts this step only after this hook
        step = self.trainer.global_step + 1
        for learner in self.learners.values():
            learner.teacher.update(learner.model, step)
        self._report = self._window.complete(step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log an optimizer step once it is complete, then hand it over: after Lightning's callbacks had their turn."""
        report, self._report = self._report, None
        if report is None:
            return
        for name, value in report.metrics.items():
            self.log(name, value, prog_bar=name in PROGRESS_BAR_METRICS, batch_size=1)
        for callback in run_callbacks(self.trainer):
            callback.on_step(self.trainer, self, report)

    def validation_step(self, problems: list[Problem], batch_idx: int) -> None:
        """Sample k completions of each problem and count the accepted ones."""
        self.sampled_evaluation.update(self._evaluate(problems, "validate"))

    def test_step(self, problems: list[Problem], batch_idx: int) -> None:
        """The same on the test problems."""
        self.sampled_evaluation.update(self._evaluate(problems, "test"))

    def predict_step(self, problems: list[Problem], batch_idx: int) -> None:
        """Hand the judged samples to the callbacks."""
        self._evaluate(problems, "predict")

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _evaluate(self, problems: list[Problem], stage: str) -> list[JudgedRollout]:
        rollouts = self.evaluation_rollouts.rollouts(self.learner, problems, stream="evaluation")
        judged = judge(self.evaluation_verifier, rollouts)
        for callback in run_callbacks(self.trainer):
            callback.on_evaluated(self.trainer, self, stage, judged)
        return judged

    def _log_evaluation(self, prefix: str) -> None:
        for name, value in self.sampled_evaluation.take().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "avg@k", batch_size=1)
