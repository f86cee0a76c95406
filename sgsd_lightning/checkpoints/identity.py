"""The identity of a run: all that its steps depend on, as short strings to compare with a checkpoint's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from sgsd_lightning.types import Problem

COUNTED = (
    "seed_everything",
    "model",
    "data",
    "bank_maintenance",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
    "trainer.precision",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
)
"""Settings of a configuration that a step depends on. Not counted: how long, on what and how watched it is run."""
COMPARED_BY_CONTENT = (
    "model.init_args.contexts.init_args.bank",
    "model.init_args.rollouts.init_args.guidance.init_args.bank",
    "model.init_args.prompts.init_args.chat_template",
    "data.init_args.train",
    "data.init_args.validation",
    "data.init_args.test",
    "data.init_args.batch_size",
    "data.init_args.evaluation_batch_size",
)
"""Files may move and processes be more or fewer; their content and the problems of a micro-batch are compared instead.
Which problems evaluate changes no step."""
NUM_SAMPLED = 64
"""Values of each frozen weight that tell one model from another."""

Identity = dict[str, str]


def settings_identity(config: Mapping[str, Any]) -> Identity:
    """The counted settings of a configuration, by dotted name, each value as JSON."""
    return {
        name: json.dumps(value, sort_keys=True, default=str)
        for name, value in _flat(config)
        if _is_under(name, COUNTED) and not _is_under(name, COMPARED_BY_CONTENT)
    }


def problems_digest(problems: Iterable[Problem]) -> str:
    """Digest ids, texts and answers, in order."""
    return _digest([problem.problem_id, problem.text, problem.answer] for problem in problems)


def problem_fields_digest(problems: Iterable[Problem]) -> str:
    """Of all else that a prompt can show of them: solutions, shards, and the source's other fields."""
    return _digest([problem.solution, problem.shards, dict(problem.metadata)] for problem in problems)


def prompts_digest(prompts: Iterable[Sequence[int]]) -> str:
    """Of the ids of rendered prompts, in their order."""
    return _digest(list(prompt) for prompt in prompts)


def contexts_digest(state: Mapping[str, Any]) -> str:
    """Digest the initial state of the teacher contexts, such as the skill bank."""
    return _digest([[name, value] for name, value in sorted(state.items())])


def parameters_digest(model: nn.Module) -> str:
    """Digest names, full shapes and trainability of all parameters, also of sharded ones."""
    return _digest(
        [name, list(parameter.shape), parameter.requires_grad] for name, parameter in model.named_parameters()
    )


def frozen_weights_digest(modules: Iterable[nn.Module]) -> str | None:
    """Digest some values of every frozen parameter, which a checkpoint lacks; None if they are sharded."""
    frozen = [
        (name, parameter.detach())
        for module in modules
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad
    ]
    if any(isinstance(parameter, DTensor) for _, parameter in frozen):
        return None
    return _digest([name, _sample(parameter)] for name, parameter in frozen)


def sampled_weights_digest(model: nn.Module) -> str:
    """Digest some values of every parameter, trained or not."""
    return _digest([name, _sample(parameter.detach())] for name, parameter in model.named_parameters())


def differences(saved: Mapping[str, str], now: Mapping[str, str], among: Iterable[str]) -> list[str]:
    """Return one line per name whose values differ: the checkpoint's, then the current one."""
    return [
        f"{name}: {saved.get(name, 'not set')} in the checkpoint, {now.get(name, 'not set')} now"
        for name in sorted(among)
        if saved.get(name) != now.get(name)
    ]


def _sample(parameter: torch.Tensor) -> list[float]:
    flat = parameter.flatten()
    stride = max(1, flat.numel() // NUM_SAMPLED)
    values: list[float] = flat[::stride][:NUM_SAMPLED].float().tolist()
    return values


def _digest(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _is_under(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
