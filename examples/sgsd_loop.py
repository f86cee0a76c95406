"""SGSD without a trainer: every part of a step, called one after the other on the toy world.

    python examples/sgsd_loop.py --steps 40

The losses equal those of `sgsd fit --config sgsd_toy`. What is missing here is what Lightning and the callbacks add:
several processes, checkpoints and resume, validation, logs and guards.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from sgsd_lightning.contexts import SkillPairs
from sgsd_lightning.data import ProblemLoader
from sgsd_lightning.engines import GenerationRequest, TransformersEngine, end_of_sequence_ids
from sgsd_lightning.objectives import GatedPolarity
from sgsd_lightning.policy import LiveTeacher, PolicySource
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.scoring import LossMaskRule, Scorer
from sgsd_lightning.seeding import rollout_seed
from sgsd_lightning.toy import (
    PAIR_TEMPLATE,
    STUDENT_TEMPLATE,
    TEACHER_TEMPLATE,
    TOY_BANK,
    ToyPolicy,
    ToyProblems,
)
from sgsd_lightning.types import (
    JudgedRollout,
    Problem,
    Rollout,
    SamplingSettings,
    ScoreRow,
    TeacherContext,
    TokenSequence,
    Turn,
)
from sgsd_lightning.verifiers import MathAnswer

SEED = 0
GROUP_SIZE = 4
NUM_TEACHERS = 8


class Loop:
    """The parts of SGSD. Each is one folder of the package, and each can be replaced."""

    def __init__(self, source: PolicySource | None = None) -> None:
        source = source or ToyPolicy(seed=SEED)
        self.tokenizer = source.load_tokenizer()
        self.model = source.load_model()
        self.prompts = ChatPrompts(STUDENT_TEMPLATE, TEACHER_TEMPLATE, student_template_args={"enable_thinking": False})
        self.engine = TransformersEngine()
        self.sampling = SamplingSettings(max_new_tokens=32)
        self.verifier = MathAnswer()
        self.contexts = SkillPairs(TOY_BANK, num_contexts=NUM_TEACHERS, template=PAIR_TEMPLATE)
        self.contexts.prepare()
        self.loss_mask = LossMaskRule(self.tokenizer, train_eos=True)
        self.scorer = Scorer(teacher_tokens_per_forward=2048)
        self.objective = GatedPolarity(gate_temperature=1.0, log_ratio_clip=3.0, stance_threshold=0.05)
        self.optimizer = AdamW(self.model.parameters(), lr=2e-4, weight_decay=0.0)

    def sample(self, problems: list[Problem], step: int) -> list[Rollout]:
        """1. A group of completions of each problem's plain prompt."""
        wanted = [(problem, index) for problem in problems for index in range(GROUP_SIZE)]
        requests = [
            GenerationRequest(
                prompt_ids=self.prompts.student(self.tokenizer, problem),
                seed=rollout_seed(
                    "rollout", SEED, step=step, policy="policy", problem=problem.problem_id, sample=index
                ),
                stop_ids=end_of_sequence_ids(self.model, self.tokenizer),
            )
            for problem, index in wanted
        ]
        self.engine.sync(self.model, version=step)
        completions = self.engine.generate(self.model, requests, self.sampling)
        rollouts = []
        for (problem, index), request, completion in zip(wanted, requests, completions, strict=True):
            text = self.tokenizer.decode(list(completion.ids), skip_special_tokens=True)
            turn = Turn(prompt_ids=request.prompt_ids, completion=completion, text=text)
            messages = [*self.prompts.student_messages(problem), {"role": "assistant", "content": text}]
            rollouts.append(Rollout(problem=problem, turns=(turn,), messages=messages, sample_index=index))
        return rollouts

    def row(self, judged: JudgedRollout, teachers: list[TeacherContext], group: int) -> ScoreRow:
        """3. The sampled ids after the student's prompt, and the same ids after every teacher's."""
        (turn,) = judged.rollout.turns
        ids = turn.completion.ids
        prompts = [self.prompts.teacher(self.tokenizer, judged.rollout.problem, teacher) for teacher in teachers]
        return ScoreRow(
            student=(TokenSequence.causal(turn.prompt_ids, ids),),
            teachers=tuple((TokenSequence.causal(prompt_ids, ids),) for prompt_ids in prompts),
            context_weight=tuple(teacher.weight for teacher in teachers),
            group=group,
            loss_mask=self.loss_mask(turn.completion),
            sampled_logprob=turn.completion.logprobs,
            step_index=torch.zeros(len(ids), dtype=torch.int64),
        )

    def step(self, problems: list[Problem], step: int) -> tuple[float, float]:
        """One optimizer step: its loss and its mean reward."""
        rollouts = self.sample(problems, step)
        judged = self.verifier.verify(rollouts)  # 2. right or wrong: outcome +1, -1 or 0
        teachers = self.contexts.contexts_for(judged, {"policy": judged})  # K skill-mistake pairs per problem
        groups = {problem.problem_id: number for number, problem in enumerate(problems)}
        rows = [
            self.row(entry, pairs, groups[entry.rollout.problem.problem_id])
            for entry, pairs in zip(judged, teachers, strict=True)
        ]
        # 4. log-probabilities: the teachers' without gradient, then the student's, once per rollout
        scores = self.scorer.score(self.model, LiveTeacher(), rows, self.objective.score_request)
        # 5. per teacher a stance, with the outcome a polarity, per token a gated loss
        verdicts = [entry.verdict for entry in judged]
        result = self.objective(scores, verdicts)
        self.optimizer.zero_grad()
        result.loss.backward()
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return result.loss.item(), sum(verdict.reward or 0.0 for verdict in verdicts) / len(verdicts)


def train(num_steps: int) -> Iterator[tuple[float, float]]:
    """The loss and mean reward of every step."""
    loop = Loop()
    batches = iter(ProblemLoader(ToyProblems("train", 2000).load(), batch_size=8, seed=SEED, drop_last=True))
    for step in range(num_steps):
        yield loop.step(next(batches), step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    for number, (loss, reward) in enumerate(train(parser.parse_args().steps), start=1):
        print(f"step {number:3d}  loss {loss:+.5f}  reward {reward:.3f}")
