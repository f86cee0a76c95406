"""What the base model reads: prompts, plain or with guidance, and traces of a convention drawn for each."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from sgsd_lightning.toy.bank import load_toy_bank
from sgsd_lightning.toy.problems import Convention, Minus, Precedence, expressions, trace
from sgsd_lightning.toy.prompts import PAIR_TEMPLATE, SOLUTION_TEMPLATE, STUDENT_TEMPLATE, TEACHER_TEMPLATE

_DIRECTION = {"helpful": 1, "irrelevant": 0, "misleading": -1}
_NO_GUIDANCE = {"precedence": 0.0, "minus": 0.0}


@dataclass(frozen=True, slots=True)
class Belief:
    """How probable the true convention is under no guidance, helpful guidance and misleading guidance."""

    prior: float
    helpful: float
    misleading: float

    def probability(self, direction: float) -> float:
        """Between the three by log-odds; ``direction`` runs from -1 (misleading) over 0 to +1 (helpful)."""
        end = _log_odds(self.helpful if direction > 0 else self.misleading)
        middle = _log_odds(self.prior)
        return 1 / (1 + math.exp(-(middle + abs(direction) * (end - middle))))


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """How often each kind of example occurs, and what guidance does."""

    precedence: Belief = Belief(prior=0.45, helpful=0.85, misleading=0.12)
    minus: Belief = Belief(prior=0.85, helpful=0.96, misleading=0.5)
    drill_multiplication_first: float = 0.7
    """In drills, instead of the prior: the order that is harder to learn is shown more often."""
    guided_frac: float = 0.5
    """Examples whose prompt shows a skill and a mistake."""
    solution_frac: float = 0.0
    """Examples whose prompt shows the problem's worked solution."""
    after_solution: float = 0.95
    """Of those, the ones that follow it."""
    mixed_pair_frac: float = 0.15
    """Of those, the ones whose skill and mistake stand at different places of the bank."""
    thinking_frac: float = 0.1
    """Examples whose prompt leaves the think tags to the model, which then does not write any."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded examples."""

    input_ids: Tensor
    """[batch, length] int64."""
    is_completion: Tensor
    """[batch, length] bool."""


class Corpus:
    """An endless stream of examples; equal generators give equal streams."""

    def __init__(self, settings: CorpusSettings, tokenizer: PreTrainedTokenizerFast, generator: random.Random) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.generator = generator
        self._expressions = expressions("train", generator)
        bank = load_toy_bank()
        self._skills, self._mistakes = bank["general_skills"], bank["common_mistakes"]
        self._prompts: dict[tuple[str, bool], str] = {}

    def batch(self, size: int, is_drill: bool = False) -> TokenBatch:
        """``size`` examples that :meth:`examples` describes, tokenized."""
        prompts, completions = zip(*self.examples(size, is_drill), strict=True)
        encode = self.tokenizer.backend_tokenizer.encode_batch_fast
        prompt_ids = [encoding.ids for encoding in encode(list(prompts), add_special_tokens=False)]
        completion_ids = [encoding.ids for encoding in encode(list(completions), add_special_tokens=False)]
        length = max(len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True))
        input_ids = torch.full((size, length), self.tokenizer.pad_token_id)
        is_completion = torch.zeros(size, length, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(zip(prompt_ids, completion_ids, strict=True)):
            end = len(prompt) + len(completion)
            input_ids[row, :end] = torch.tensor(prompt + completion)
            is_completion[row, len(prompt) : end] = True
        return TokenBatch(input_ids, is_completion)

    def examples(self, size: int, is_drill: bool = False) -> list[tuple[str, str]]:
        """``size`` pairs of a prompt and the completion that follows it, end of sequence included.

        A drill's prompt starts at the expression: short sequences, for learning arithmetic. Otherwise prompts are
        rendered by the chat template, and all of them are of one kind, so that a batch's lengths are alike.
        """
        if is_drill:
            return [self._drill() for _ in range(size)]
        kind = self.generator.random()
        if kind >= 1 - self.settings.solution_frac:
            return [self._after_solution() for _ in range(size)]
        return [self._example(kind < self.settings.guided_frac) for _ in range(size)]

    def _drill(self) -> tuple[str, str]:
        expression = next(self._expressions)
        tail = self._rendered("", thinking=False).partition("{problem}")[2]
        return expression + tail, self._completion(
            expression, self.settings.drill_multiplication_first, wrap=self.settings.minus.prior
        )

    def _example(self, guided: bool) -> tuple[str, str]:
        context, directions = self._guidance() if guided else ("", dict(_NO_GUIDANCE))
        expression = next(self._expressions)
        thinking = self.generator.random() < self.settings.thinking_frac
        # a rendered prompt holds the problem once, so the slow template runs once per context
        prompt = self._rendered(context, thinking).replace("{problem}", expression)
        first = self.settings.precedence.probability(directions["precedence"])
        wrap = self.settings.minus.probability(directions["minus"])
        return prompt, self._completion(expression, first, wrap)

    def _after_solution(self) -> tuple[str, str]:
        expression = next(self._expressions)
        prompt = self._rendered(SOLUTION_TEMPLATE, thinking=False)
        prompt = prompt.replace("{reference}", trace(expression)).replace("{problem}", expression)
        return prompt, self._completion(expression, self.settings.after_solution, self.settings.after_solution)

    def _completion(self, expression: str, first: float, wrap: float) -> str:
        """A trace whose convention is drawn: ``first`` and ``wrap`` are the true members' probabilities."""
        is_first, is_wrap = self.generator.random() < first, self.generator.random() < wrap
        convention = Convention(
            Precedence.MULTIPLICATION_FIRST if is_first else Precedence.LEFT_TO_RIGHT,
            Minus.WRAP if is_wrap else Minus.ABSOLUTE,
        )
        return trace(expression, convention) + str(self.tokenizer.eos_token)

    def _guidance(self) -> tuple[str, dict[str, float]]:
        index = self.generator.randrange(len(self._skills))
        other = index
        if self.generator.random() < self.settings.mixed_pair_frac:
            other = self.generator.randrange(len(self._mistakes))
        skill, mistake = self._skills[index], self._mistakes[other]
        directions = dict(_NO_GUIDANCE)
        for item in (skill, mistake):
            if item["toy_subject"] in directions:
                directions[item["toy_subject"]] += _DIRECTION[item["toy_truth"]] / 2
        return _pair_text(skill, mistake), directions

    def _rendered(self, context: str, thinking: bool) -> str:
        key = (context, thinking)
        if key not in self._prompts:
            template = TEACHER_TEMPLATE.replace("{context}", context) if context else STUDENT_TEMPLATE
            self._prompts[key] = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": template}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=thinking,
            )
        return self._prompts[key]


def _pair_text(skill: dict[str, Any], mistake: dict[str, Any]) -> str:
    return PAIR_TEMPLATE.format_map({**skill, **mistake})


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))
