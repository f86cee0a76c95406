"""The training step of on-policy self-distillation, as a LightningModule: where the parts of the loop meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from sgsd_kernels import Implementation
from torch import Tensor
from torch.optim import AdamW
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.contexts import ContextBuilder
from sgsd_lightning.data import ChatPrompts, ProblemDataModule
from sgsd_lightning.diagnostics import average, rollout_metrics, score_metrics
from sgsd_lightning.evaluation import EvaluationSettings, SampledEvaluation
from sgsd_lightning.objectives import Objective, ObjectiveResult
from sgsd_lightning.policy import LiveTeacher, LossMaskRule, PolicySource, Scorer, TeacherWeights
from sgsd_lightning.preflight import check_answers, check_teacher_prompts, keep_fitting_problems
from sgsd_lightning.rollouts import RolloutEngine, RolloutRequest, TransformersEngine
from sgsd_lightning.rollouts.seeding import derive_seed
from sgsd_lightning.teacher_pool import TeacherPool, build_teacher_pool
from sgsd_lightning.timing import PhaseTimer
from sgsd_lightning.types import Problem, Rollout, SamplingSettings, StepRecord, TokenScores, Verdict
from sgsd_lightning.verifiers import MathAnswer, Verifier

CHECKPOINT_KEY = "sgsd_lightning"
PROGRESS_BAR_METRICS = {"objective/loss", "rollout/reward_mean", "objective/helpful_frac"}


class SelfDistillation(LightningModule):
    """A policy that learns from itself under other contexts, on its own rollouts.

    A method is a choice of parts; each is named in YAML by ``class_path`` and ``init_args``.

    Args:
        policy: where the model and its tokenizer come from.
        contexts: what the teachers see.
        objective: what is made of the scores.
        verifier: what says whether a completion is right.
        teacher_weights: which weights teach: by default the student's own, live.
        rollouts: what samples completions.
        prompts: prompt texts and chat-template arguments.
        sampling: how training rollouts are sampled. The default is the policy's own distribution.
        evaluation: how ``validate`` and ``test`` sample.
        samples_per_prompt: rollouts of each problem in a batch (its group).
        train_eos: whether the end-of-sequence token that ends a completion counts in the loss. The authors mask it,
            which leaves the length of completions without a direct gradient.
        teacher_tokens_per_forward: the most tokens in one forward pass of the teachers; bounds their memory.
        head_implementation: how log-probabilities are computed from hidden states (see `sgsd_kernels`).
        optimizer: from trainable parameters to an optimizer.
        lr_scheduler: from the optimizer to a scheduler that is advanced every optimizer step.
        seed: what every rollout's randomness derives from.
    """

    model: PreTrainedModel
    """Set by :meth:`configure_model`."""
    tokenizer: PreTrainedTokenizerBase
    """Set by :meth:`setup`."""

    def __init__(
        self,
        policy: PolicySource,
        contexts: ContextBuilder,
        objective: Objective,
        verifier: Verifier | None = None,
        teacher_weights: TeacherWeights | None = None,
        rollouts: RolloutEngine | None = None,
        prompts: ChatPrompts | None = None,
        sampling: SamplingSettings | None = None,
        evaluation: EvaluationSettings | None = None,
        samples_per_prompt: int = 1,
        train_eos: bool = True,
        teacher_tokens_per_forward: int = 16384,
        head_implementation: Implementation = "auto",
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=5e-6, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if samples_per_prompt < 1:
            raise ValueError(f"model.samples_per_prompt must be at least 1; got {samples_per_prompt}")
        self.policy = policy
        self.contexts = contexts
        self.objective = objective
        self.verifier = verifier or MathAnswer()
        self.teacher_weights = teacher_weights or LiveTeacher()
        self.rollouts = rollouts or TransformersEngine()
        self.prompts = prompts or ChatPrompts()
        self.sampling = sampling or SamplingSettings()
        self.evaluation = evaluation or EvaluationSettings()
        self.samples_per_prompt = samples_per_prompt
        self.train_eos = train_eos
        self.scorer = Scorer(
            teacher_tokens_per_forward=teacher_tokens_per_forward, head_implementation=head_implementation
        )
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed

        self.step_record: StepRecord | None = None
        """The last micro-batch of training, for callbacks."""
        self.evaluation_record: list[tuple[Rollout, Verdict]] = []
        """The last batch of evaluation, for callbacks."""
        self.timer = PhaseTimer()
        self._window: list[dict[str, float | Tensor]] = []
        self._is_fitting = False
        self.sampled_evaluation = SampledEvaluation(self.evaluation.samples_per_problem)

    def training_step(self, problems: list[Problem], batch_idx: int) -> Tensor:
        """One micro-batch: sample, verify, build the teacher pool, score, objective, loss."""
        with self.timer("rollout"):
            rollouts = self.sample(problems)
        with self.timer("verify"):
            verdicts = self.verifier.verify(rollouts)
        with self.timer("contexts"):
            pool = build_teacher_pool(rollouts, verdicts, self.contexts, self.prompts, self.tokenizer)
        with self.timer("score"):
            scores = self.score(pool)
            result = self.objective(scores, pool.verdicts)
        # dropped rollouts count as 0 in the mean, so that a loss does not depend on how a step is split
        loss = result.loss * (len(pool.rollouts) / len(rollouts))

        self.step_record = _record(pool, result)
        self._window.append(
            {
                "objective/loss": loss.detach(),
                **result.metrics,
                **score_metrics(scores, pool.rollouts),
                **rollout_metrics(rollouts, verdicts),
                **{f"verifier/{name}": count for name, count in self.verifier.counts().items()},
                "contexts/over_long": float(pool.num_over_long),
            }
        )
        return loss

    def sample(self, problems: Sequence[Problem]) -> list[Rollout]:
        """``samples_per_prompt`` rollouts of each problem under the student's prompt."""
        requests = [
            RolloutRequest(
                problem=problem,
                prompt_ids=self.prompts.student(self.tokenizer, problem),
                seed=derive_seed("rollout", self.seed, self.global_step, problem.problem_id, index),
                group_index=index,
            )
            for problem in problems
            for index in range(self.samples_per_prompt)
        ]
        return self.rollouts.generate(self.model, self.tokenizer, requests, self.sampling)

    def score(self, pool: TeacherPool) -> TokenScores:
        """Every rollout once under the student's prompt with gradient, and under each teacher's without."""
        return self.scorer.score(
            self.model,
            self.teacher_weights,
            pool.rollouts,
            pool.prompts,
            pool.context_weights,
            self.loss_mask_rule,
            self.objective.score_request,
        )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the means over the micro-batches of an optimizer step, once it is taken."""
        if not self.is_step_complete(batch_idx):
            return
        metrics = average(self._window)
        self._window = []
        for name, value in metrics.items():
            self.log(name, value, prog_bar=name in PROGRESS_BAR_METRICS, batch_size=1)

    def is_step_complete(self, batch_idx: int) -> bool:
        """Whether this micro-batch was the last of its optimizer step."""
        return (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch

    def validation_step(self, problems: list[Problem], batch_idx: int) -> None:
        """Sample k completions of each problem and count the accepted ones."""
        self._evaluate(problems)

    def test_step(self, problems: list[Problem], batch_idx: int) -> None:
        """The same on the test problems."""
        self._evaluate(problems)

    def predict_step(self, problems: list[Problem], batch_idx: int) -> None:
        """Leave the judged samples in ``evaluation_record``, for callbacks; Lightning cannot carry frozen records."""
        self.evaluation_record = self._sample_and_judge(problems)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _sample_and_judge(self, problems: Sequence[Problem]) -> list[tuple[Rollout, Verdict]]:
        """The noise of a problem's samples is the same at every evaluation, so that two are compared like with like."""
        num_samples = self.evaluation.samples_per_problem
        builder = self.evaluation.contexts
        contexts = builder.build(problems) if builder else [[] for _ in problems]
        requests = [
            RolloutRequest(
                problem=problem,
                prompt_ids=self.prompts.evaluation(self.tokenizer, problem, pool[index % len(pool)] if pool else None),
                seed=derive_seed("evaluation", self.seed, problem.problem_id, index),
                group_index=index,
            )
            for problem, pool in zip(problems, contexts, strict=True)
            for index in range(num_samples)
        ]
        rollouts = self.rollouts.generate(self.model, self.tokenizer, requests, self.evaluation.sampling)
        return list(zip(rollouts, self.verifier.verify(rollouts), strict=True))

    def _evaluate(self, problems: Sequence[Problem]) -> None:
        self.evaluation_record = self._sample_and_judge(problems)
        self.sampled_evaluation.update(self.evaluation_record)

    def _log_evaluation(self, prefix: str) -> None:
        for name, value in self.sampled_evaluation.take().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "avg@k")

    def setup(self, stage: str) -> None:
        """Load what is cheap and check what can be checked before the model is loaded."""
        if not hasattr(self, "tokenizer"):
            self.tokenizer = self.policy.load_tokenizer()
            self.loss_mask_rule = LossMaskRule(self.tokenizer, train_eos=self.train_eos)
        splits = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        self._is_fitting = stage == "fit"
        if self._is_fitting:
            self.contexts.prepare()
        if self.evaluation.contexts is not None:
            self.evaluation.contexts.prepare()
        self._check_problems(splits)

    def _check_problems(self, splits: Sequence[str]) -> None:
        """Run the preflight over the data module's problems; a plain dataloader's are taken as they are."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ProblemDataModule):
            return
        for split in splits:
            if split not in data.problems:
                continue
            check_answers(data.problems[split], self.verifier)
            data.keep(split, keep_fitting_problems(data.problems[split], self.prompts, self.tokenizer, split))
        if "train" in splits:
            check_teacher_prompts(data.problems["train"], self.contexts, self.prompts, self.tokenizer)

    def configure_model(self) -> None:
        """Load the model, once, when the strategy says where."""
        if hasattr(self, "model"):
            return
        self.model = self.policy.load_model()
        self.teacher_weights.prepare(self.model, self.policy)

    def on_fit_start(self) -> None:
        """Settle how the head is computed, where the model now is, before the first rollout costs anything."""
        with self.trainer.strategy.precision_plugin.train_step_context():
            self.scorer.resolve_head(self.model)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([parameter for parameter in self.model.parameters() if parameter.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the teacher's weights follow: before any callback can write a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.teacher_weights.update(self.model, self.trainer.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the bank and the teacher's weights; leave out frozen weights, which the policy's source gives back."""
        frozen = self._frozen_names()
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name not in frozen
        }
        checkpoint[CHECKPOINT_KEY] = {
            "contexts": dict(self.contexts.state_dict()),
            "teacher_weights": dict(self.teacher_weights.state_dict()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the bank and the teacher's weights of the checkpoint."""
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                "this checkpoint was not written by sgsd_lightning (it has no entry "
                f"{CHECKPOINT_KEY!r}); a Hugging Face folder goes under policy.init_args.model_name_or_path"
            )
        self.configure_model()
        frozen = self._frozen_names()
        checkpoint["state_dict"].update({name: value for name, value in self.state_dict().items() if name in frozen})
        if not self._is_fitting:
            return  # evaluation and export use neither the training contexts nor a teacher
        state = checkpoint[CHECKPOINT_KEY]
        self.contexts.load_state_dict(state["contexts"])
        self.teacher_weights.load_state_dict(state["teacher_weights"])

    def _frozen_names(self) -> set[str]:
        """Names in the state dict of parameters that are not trained; none when everything is."""
        return {
            f"model.{name}"
            for name, parameter in self.model.named_parameters(remove_duplicate=False)
            if not parameter.requires_grad
        }


def _record(pool: TeacherPool, result: ObjectiveResult) -> StepRecord:
    """Bring the objective's [B, K] measurements back to each rollout's own contexts."""

    def ragged(values: Tensor | None) -> list[list[Any]]:
        rows = [] if values is None else values.tolist()
        return [row[: len(contexts)] for row, contexts in zip(rows, pool.contexts, strict=False)]

    return StepRecord(
        rollouts=pool.rollouts,
        verdicts=pool.verdicts,
        contexts=pool.contexts,
        stance_score=ragged(result.stance_score),
        polarity=[[int(value) for value in row] for row in ragged(result.polarity)],
    )
