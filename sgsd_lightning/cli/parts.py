"""The parts of a run that a configuration chooses, and the classes that come with the package for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from sgsd_lightning.cli.source.modules import Definition, find, names_of, read_module
from sgsd_lightning.cli.source.signatures import is_abstract, lineage

MODEL = "--model.init_args."
DATA = "--data.init_args."


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part."""

    says: str
    """What it decides."""
    option: str
    """What sets it on the command line."""
    base: str
    """Import path of its base class, or of its only class."""
    modules: tuple[str, ...] = ()
    """Import paths of the modules whose classes may serve; none if ``base`` is all there is."""


PARTS = {
    "policy": Part(
        says="the model and its tokenizer",
        option=f"{MODEL}policy",
        base="sgsd_lightning.policy.PolicySource",
        modules=("sgsd_lightning.policy", "sgsd_lightning.toy"),
    ),
    "lora": Part(
        says="an adapter in the place of all weights",
        option=f"{MODEL}policy.init_args.lora",
        base="sgsd_lightning.policy.LoraSettings",
    ),
    "contexts": Part(
        says="what teachers read beside the problem",
        option=f"{MODEL}contexts",
        base="sgsd_lightning.contexts.ContextBuilder",
        modules=("sgsd_lightning.contexts",),
    ),
    "retriever": Part(
        says="which skills and mistakes a problem gets",
        option=f"{MODEL}contexts.init_args.retriever",
        base="sgsd_lightning.skills.Retriever",
        modules=("sgsd_lightning.skills",),
    ),
    "objective": Part(
        says="what is made of scores and verdicts",
        option=f"{MODEL}objective",
        base="sgsd_lightning.objectives.Objective",
        modules=("sgsd_lightning.objectives",),
    ),
    "advantages": Part(
        says="how rewards become advantages",
        option=f"{MODEL}objective.init_args.advantages",
        base="sgsd_lightning.objectives.Advantages",
        modules=("sgsd_lightning.objectives",),
    ),
    "verifier": Part(
        says="whether a completion is right",
        option=f"{MODEL}verifier",
        base="sgsd_lightning.verifiers.Verifier",
        modules=("sgsd_lightning.verifiers",),
    ),
    "teacher_weights": Part(
        says="which weights teach, and which sample (sampled_under)",
        option=f"{MODEL}teacher_weights",
        base="sgsd_lightning.policy.PolicyView",
        modules=("sgsd_lightning.policy",),
    ),
    "rollouts": Part(
        says="who speaks when; how many samples",
        option=f"{MODEL}rollouts",
        base="sgsd_lightning.rollouts.Rollouter",
        modules=("sgsd_lightning.rollouts",),
    ),
    "engine": Part(
        says="what samples token ids",
        option=f"{MODEL}rollouts.init_args.engine",
        base="sgsd_lightning.engines.RolloutEngine",
        modules=("sgsd_lightning.engines",),
    ),
    "sampling": Part(
        says="temperature, top-p, length",
        option=f"{MODEL}rollouts.init_args.sampling",
        base="sgsd_lightning.types.SamplingSettings",
    ),
    "scoring": Part(
        says="how sampled ids are scored",
        option=f"{MODEL}scoring",
        base="sgsd_lightning.training.ScoringSettings",
    ),
    "prompts": Part(
        says="prompt texts and the chat template",
        option=f"{MODEL}prompts",
        base="sgsd_lightning.prompts.ChatPrompts",
    ),
    "evaluation": Part(
        says="how validate, test and evaluate sample and judge",
        option=f"{MODEL}evaluation",
        base="sgsd_lightning.training.EvaluationSettings",
    ),
    "optimizer": Part(
        says="torch's optimizers",
        option=f"{MODEL}optimizer",
        base="torch.optim.Optimizer",
        modules=("torch.optim",),
    ),
    "scheduler": Part(
        says="torch's learning-rate schedules, advanced every optimizer step",
        option=f"{MODEL}lr_scheduler",
        base="torch.optim.lr_scheduler.LRScheduler",
        modules=("torch.optim.lr_scheduler",),
    ),
    "data": Part(
        says="batches of problems",
        option="--data",
        base="sgsd_lightning.data.ProblemDataModule",
    ),
    "problems": Part(
        says="where problems come from: train, validation, test",
        option=f"{DATA}train",
        base="sgsd_lightning.data.ProblemSource",
        modules=("sgsd_lightning.data", "sgsd_lightning.toy"),
    ),
    "writer": Part(
        says="who writes new items of a growing bank",
        option="--bank_maintenance.writer",
        base="sgsd_lightning.skills.growth.writer.SkillWriter",
        modules=("sgsd_lightning.skills.growth", "sgsd_lightning.toy"),
    ),
    "language_model": Part(
        says="the model behind a writer",
        option="--bank_maintenance.writer.init_args.model",
        base="sgsd_lightning.language_models.LanguageModel",
        modules=("sgsd_lightning.language_models",),
    ),
    "strategy": Part(
        says="our strategy for sharded models; Lightning's go by name (ddp)",
        option="--trainer.strategy",
        base="sgsd_lightning.training.FSDP2Strategy",
    ),
    "trainer": Part(
        says="Lightning's trainer: steps, devices, precision, logging",
        option="--trainer",
        base="lightning.pytorch.Trainer",
    ),
}
"""By the name that `sgsd help` takes; callbacks, which have names of their own, are not among them."""
ALIASES = {
    "lr_scheduler": "scheduler",
    "sampled_under": "teacher_weights",
    "teacher": "teacher_weights",
    "train": "problems",
    "validation": "problems",
    "test_problems": "problems",
    "llm": "language_model",
}


def part_names() -> list[str]:
    """Of every part, callbacks included."""
    return [*PARTS, "callbacks"]


def part_called(name: str) -> str | None:
    """The part of a name, of its plural, or of another word for it."""
    plain = name.lower().replace("-", "_")
    known = {*part_names(), *ALIASES}
    found = next((word for word in (plain, plain.removesuffix("s"), f"{plain}s") if word in known), None)
    return None if found is None else ALIASES.get(found, found)


@cache
def classes_of(part: Part) -> dict[str, Definition]:
    """Import path to class of what the package has for a part."""
    if not part.modules:
        only = find(part.base)
        return {part.base: only} if isinstance(only, Definition) else {}
    base = find(part.base)
    assert isinstance(base, Definition)
    return {
        path: found
        for path, found in _classes(part.modules)
        if found.path != base.path and _is_below(found, base) and not is_abstract(found)
    }


def class_called(name: str) -> tuple[Part, str, Definition] | None:
    """The part, import path and class of a class name that comes with the package."""
    for part in PARTS.values():
        # classes are read only where the name is known: torch's optimizers take a while
        if name not in _exported(part):
            continue
        for path, found in classes_of(part).items():
            if path.rpartition(".")[2] == name:
                return part, path, found
    return None


def class_names(parts: Iterable[Part]) -> list[str]:
    """What may be meant by a misspelt class name."""
    return [name for part in parts for name in _exported(part) if name[:1].isupper()]


def _exported(part: Part) -> list[str]:
    modules = [read_module(name) for name in part.modules]
    exported = [name for module in modules if module is not None for name in names_of(module)]
    return exported or [part.base.rpartition(".")[2]]


def _classes(modules: Sequence[str]) -> Iterator[tuple[str, Definition]]:
    for module in modules:
        read = read_module(module)
        for name in names_of(read) if read is not None else ():
            found = find(f"{module}.{name}") if read is not None and name in read.defined else None
            if isinstance(found, Definition):
                yield f"{module}.{name}", found


def _is_below(definition: Definition, base: Definition) -> bool:
    return any(above is not None and above.path == base.path for above in lineage(definition))
