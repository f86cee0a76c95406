"""The training step of on-policy self-distillation, as a LightningModule: where the parts of the loop meet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from sgsd_kernels import Implementation
from torch import Tensor
from torch.optim import AdamW
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgsd_lightning.contexts import ContextBuilder, guidance_of
from sgsd_lightning.contexts.pool import TeacherPool, build_teacher_pool
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.distributed.processes import gather_from_processes, num_processes, sum_over_processes
from sgsd_lightning.metrics.measurements import Measurement, Total, combine
from sgsd_lightning.metrics.timing import PhaseTimer
from sgsd_lightning.objectives import Objective
from sgsd_lightning.policy import LiveTeacher, PolicySource, TeacherWeights
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.rollouts import RolloutEngine, RolloutRequest, TransformersEngine, check_freshness
from sgsd_lightning.rollouts.reuse import JudgedRollouts, RolloutReuse
from sgsd_lightning.scoring import LossMaskRule, Scorer
from sgsd_lightning.seeding import derive_seed
from sgsd_lightning.training import EvaluationSettings, SampledEvaluation
from sgsd_lightning.training.fsdp2 import check_strategy, shard
from sgsd_lightning.training.preflight import check_problems
from sgsd_lightning.training.saved_weights import complete_weights, restorable_names
from sgsd_lightning.training.step_metrics import (
    objective_metrics,
    rollout_metrics,
    sampler_metrics,
    score_metrics,
    token_metrics,
)
from sgsd_lightning.training.step_record import observations, record_step
from sgsd_lightning.types import (
    Observation,
    Problem,
    Rollout,
    SamplingSettings,
    StepRecord,
    TeacherContext,
    TokenScores,
    Verdict,
)
from sgsd_lightning.verifiers import MathAnswer, Verifier

CHECKPOINT_KEY = "sgsd_lightning"
PROGRESS_BAR_METRICS = {"objective/loss", "rollout/reward_mean", "objective/helpful_frac"}


class SelfDistillation(LightningModule):
    """A policy that learns from itself under other contexts, on its own rollouts.

    A method is a choice of parts; each is named in YAML by ``class_path`` and ``init_args``.

    Args:
        policy: where the model and its tokenizer come from.
        contexts: what the teachers see.
        student_contexts: what the student's training prompts show beside the problem, all in one block (the +Skill
            variants); the teachers see it too. None, the default and the paper's, trains on plain prompts. Evaluation
            has contexts of its own.
        objective: what is made of the scores.
        verifier: what says whether a completion is right.
        teacher_weights: which weights teach: by default the student's own, live.
        rollouts: what samples completions.
        prompts: prompt texts and chat-template arguments.
        sampling: how training rollouts are sampled. The default is the policy's own distribution.
        evaluation: how ``validate`` and ``test`` sample.
        samples_per_prompt: rollouts of each problem in a batch (its group).
        updates_per_batch: optimizer steps on the same rollouts, for objectives that weigh how probable a token is now
            against when it was sampled, as `PolicyGradient` does. The data module must be told the same number, which
            the command line does.
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
        student_contexts: ContextBuilder | None = None,
        verifier: Verifier | None = None,
        teacher_weights: TeacherWeights | None = None,
        rollouts: RolloutEngine | None = None,
        prompts: ChatPrompts | None = None,
        sampling: SamplingSettings | None = None,
        evaluation: EvaluationSettings | None = None,
        samples_per_prompt: int = 1,
        updates_per_batch: int = 1,
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
        self.student_contexts = student_contexts
        self.objective = objective
        self.verifier = verifier or MathAnswer()
        self.teacher_weights = teacher_weights or LiveTeacher()
        self.rollouts = rollouts or TransformersEngine()
        self.prompts = prompts or ChatPrompts()
        self.sampling = sampling or SamplingSettings()
        self.evaluation = evaluation or EvaluationSettings()
        self.samples_per_prompt = samples_per_prompt
        self.reuse = RolloutReuse(updates_per_batch)
        self.train_eos = train_eos
        self.timer = PhaseTimer()
        self.scorer = Scorer(
            teacher_tokens_per_forward=teacher_tokens_per_forward,
            head_implementation=head_implementation,
            timer=self.timer,
        )
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed

        self.step_record: StepRecord | None = None
        """The last micro-batch of training, for callbacks."""
        self.sampled_lengths: list[tuple[int, int]] = []
        """Prompt and completion tokens of every rollout of the last micro-batch, dropped ones included."""
        self.step_metrics: dict[str, float] = {}
        """What all processes measured over the last optimizer step, for callbacks, whose hooks precede its logging."""
        self.evaluation_record: list[tuple[Rollout, Verdict]] = []
        """The last batch of evaluation, for callbacks."""
        self._window: list[dict[str, Measurement]] = []
        self._observations: list[Observation] = []
        self._is_fitting = False
        self._has_teacher = False
        # on_load_checkpoint says in its own words what is missing
        self.strict_loading = False
        self.sampled_evaluation = SampledEvaluation(self.evaluation.samples_per_problem)

    def training_step(self, problems: list[Problem], batch_idx: int) -> Tensor:
        """One micro-batch: sample, verify, build the teacher pool, score, objective, loss."""
        micro_batches = self.trainer.accumulate_grad_batches
        kept = self.reuse.find(problems, batch_idx, micro_batches)
        rollouts, verdicts = kept or self._judged_rollouts(problems)
        self.reuse.keep(JudgedRollouts(rollouts, verdicts), batch_idx, micro_batches)
        self.sampled_lengths = [] if kept else [(len(r.prompt_ids), len(r.completion_ids)) for r in rollouts]
        with self.timer("contexts"):
            pool = build_teacher_pool(
                rollouts, verdicts, self.contexts, self.prompts, self.tokenizer, self.student_contexts
            )
        scores = self.score(pool)
        with self.timer("objective"):
            result = self.objective(scores, pool.verdicts)
            loss = self._share_of_step(result.loss, len(pool.rollouts), len(rollouts))

        self.step_record = record_step(pool, scores, result, is_reused=kept is not None)
        self._window.append(
            {
                **objective_metrics(result, len(pool.rollouts), len(rollouts)),
                **score_metrics(scores),
                **token_metrics(self.scorer.token_counts, self.sampled_lengths),
                "contexts/over_long": Total(float(pool.num_over_long)),
            }
        )
        if kept is None:  # rollouts are measured once, and are evidence once
            self._window.append({**rollout_metrics(rollouts, verdicts), **sampler_metrics(scores)})
            self._observations += observations(self.step_record)
        return loss

    def _judged_rollouts(self, problems: Sequence[Problem]) -> JudgedRollouts:
        with self.timer("rollout"):
            rollouts = self.sample(problems)
        with self.timer("verify"):
            return JudgedRollouts(rollouts, self.verifier.verify(rollouts))

    def _share_of_step(self, mean_loss: Tensor, num_scored: int, num_sampled: int) -> Tensor:
        """This process's part of the mean over all rollouts that were sampled for this micro-batch, by any process.

        Dropped rollouts count as 0 in that mean, and gradients are averaged over processes, so that neither loss nor
        gradient depends on how a step is split.
        """
        mean_sampled = sum_over_processes(num_sampled, self.device) / num_processes()
        return mean_loss * (num_scored / mean_sampled if mean_sampled else 0.0)

    def sample(self, problems: Sequence[Problem]) -> list[Rollout]:
        """``samples_per_prompt`` rollouts of each problem under the student's prompt."""
        guidance = guidance_of(self.student_contexts, problems)
        requests = [
            RolloutRequest(
                problem=problem,
                prompt_ids=self.prompts.student(self.tokenizer, problem, guidance[problem.problem_id]),
                seed=derive_seed("rollout", self.seed, self.global_step, problem.problem_id, index),
                group_index=index,
            )
            for problem in problems
            for index in range(self.samples_per_prompt)
        ]
        return self._generate(requests, self.sampling)

    def _generate(self, requests: Sequence[RolloutRequest], sampling: SamplingSettings) -> list[Rollout]:
        """Rollouts of the weights as they are now."""
        version = self.global_step
        rollouts = self.rollouts.generate(self.model, self.tokenizer, requests, sampling, weights_version=version)
        check_freshness(self.rollouts, rollouts, version)
        return rollouts

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

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Free the gradients of the last step before rollouts need the memory."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log what was measured over the micro-batches of an optimizer step by all processes, once it is taken."""
        if not self.is_step_complete(batch_idx):
            return
        for name, value in self.step_metrics.items():
            self.log(name, value, prog_bar=name in PROGRESS_BAR_METRICS, batch_size=1)

    def on_before_backward(self, loss: Tensor) -> None:
        self.timer.begin("backward")

    def on_after_backward(self) -> None:
        self.timer.end("backward")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.timer.begin("optimizer")

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
        indices = range(self.evaluation.samples_per_problem)
        requests = [
            self.evaluation_request(problem, index, context)
            for problem, pool in zip(problems, self.evaluation_contexts(problems), strict=True)
            for index, context in zip(indices, cycle(pool or [None]), strict=False)
        ]
        rollouts = self._generate(requests, self.evaluation.sampling)
        return list(zip(rollouts, self.verifier.verify(rollouts), strict=True))

    def evaluation_contexts(self, problems: Sequence[Problem]) -> list[list[TeacherContext]]:
        """What evaluation shows of each problem, one context a sample in turn; empty for plain prompts."""
        builder = self.evaluation.contexts
        return builder.build(problems) if builder else [[] for _ in problems]

    def evaluation_request(self, problem: Problem, index: int, context: TeacherContext | None) -> RolloutRequest:
        """A problem's ``index``-th sample, whose noise is the same at every evaluation: like is compared with like."""
        return RolloutRequest(
            problem=problem,
            prompt_ids=self.prompts.evaluation(self.tokenizer, problem, context),
            seed=derive_seed("evaluation", self.seed, problem.problem_id, index),
            group_index=index,
        )

    def _evaluate(self, problems: Sequence[Problem]) -> None:
        self.evaluation_record = self._sample_and_judge(problems)
        self.sampled_evaluation.update(self.evaluation_record)

    def _log_evaluation(self, prefix: str) -> None:
        for name, value in self.sampled_evaluation.take().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name == "avg@k", batch_size=1)

    def setup(self, stage: str) -> None:
        """Load what is cheap and check what can be checked before the model is loaded."""
        check_strategy(self.trainer, self.teacher_weights)
        if not hasattr(self, "tokenizer"):
            self.tokenizer = self.policy.load_tokenizer()
            self.loss_mask_rule = LossMaskRule(self.tokenizer, train_eos=self.train_eos)
        splits = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        self._is_fitting = stage == "fit"
        if self._is_fitting:
            self.contexts.prepare()
            if self.student_contexts is not None:
                self.student_contexts.prepare()
        if self.evaluation.contexts is not None:
            self.evaluation.contexts.prepare()
        self._check_data(splits)

    def _check_data(self, splits: Sequence[str]) -> None:
        """Run the preflight over the data module's problems; a plain dataloader's are taken as they are."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ProblemDataModule):
            return
        self.reuse.check_data(data.updates_per_batch)
        check_problems(data, splits, self.verifier, self.prompts, self.tokenizer, self.contexts, self.student_contexts)

    def configure_model(self) -> None:
        """Load the model, once, when the strategy says where, and shard it if the strategy does."""
        if not hasattr(self, "model"):
            self.model = self.policy.load_model()
            if self.device_mesh is not None:
                shard(self.model, self.trainer.strategy)
        if self._is_fitting and not self._has_teacher:
            self.teacher_weights.prepare(self.model)
            self._has_teacher = True

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
        """Step, then let teacher weights and contexts follow: before any callback can write a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.timer.end("optimizer")
        # the trainer counts this step only after this hook
        step = self.trainer.global_step + 1
        self.teacher_weights.update(self.model, step)
        self._observe(step)
        self._measure()

    def _measure(self) -> None:
        """Put together what the micro-batches of the step measured on all processes."""
        verifier_counts = {f"verifier/{name}": Total(count) for name, count in self.verifier.counts().items()}
        self.step_metrics = combine([*self._window, verifier_counts])
        self._window = []

    def _observe(self, step: int) -> None:
        """Tell the contexts what their teachers turned out to be, for all micro-batches and processes of the step."""
        gathered = gather_from_processes(self._observations)
        self._observations = []
        self.contexts.observe(step, [observation for part in gathered for observation in part])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the contexts; leave out weights that the policy's source gives back."""
        restorable = restorable_names(self.model, self.teacher_weights)
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name not in restorable
        }
        checkpoint[CHECKPOINT_KEY] = {"contexts": dict(self.contexts.state_dict())}
        if self.reuse.updates_per_batch > 1:  # every process comes here
            checkpoint[CHECKPOINT_KEY]["rollouts"] = gather_from_processes(self.reuse.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the contexts of the checkpoint, and see that it holds the weights that this run needs.

        Raises:
            ValueError: when it is not one of ours, or of a policy with other weights.
        """
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                "this checkpoint was not written by sgsd_lightning (it has no entry "
                f"{CHECKPOINT_KEY!r}); a Hugging Face folder goes under policy.init_args.model_name_or_path"
            )
        self.configure_model()
        complete_weights(checkpoint, self.state_dict(), restorable_names(self.model, self.teacher_weights))
        if self._is_fitting:  # evaluation and export do not use the training contexts
            self.contexts.load_state_dict(checkpoint[CHECKPOINT_KEY]["contexts"])
            if "rollouts" in checkpoint[CHECKPOINT_KEY]:
                self.reuse.load_state_dicts(checkpoint[CHECKPOINT_KEY]["rollouts"], self.global_rank)
