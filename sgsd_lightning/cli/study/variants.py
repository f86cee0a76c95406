"""What `sgsd study toy` compares: the paper's methods, ablations, and sweeps of the settings that matter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from sgsd_lightning.toy import load_toy_bank

MODEL = "--model.init_args"
OBJECTIVE = f"{MODEL}.objective.init_args"
CONTEXTS = f"{MODEL}.contexts.init_args"
NUM_CONTEXTS = (1, 2, 4, 8, 16)
GATE_TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)
STANCE_THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.4)
MISLEADING_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FLIPPED_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
PAIRS_IN_SHARED_BANK = 4
DEFAULTS = {("gate temperature", 1.0), ("stance threshold", 0.05), ("verifier noise", 0.0)}

Pairs = tuple[tuple[int, int], ...]
"""Places of a skill and of a mistake in the toy bank, from 0; one entry a pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row of a table: a method under one setting."""

    group: str
    """The table that it stands in."""
    name: str
    setting: float | None = None
    """Of a sweep: where it stands on the axis."""
    overlays: tuple[str, ...] = ()
    """Configurations laid over the toy world's."""
    overrides: tuple[str, ...] = ()
    """Of training alone."""
    pairs: Pairs | None = None
    """Another bank than the toy bank."""
    shows_skill: bool = False
    """Whether the student's training prompts show the best-ranked pair."""
    is_trained: bool = True


def study_variants(groups: Sequence[str]) -> list[Variant]:
    """The variants of some groups, in order.

    Raises:
        ValueError: for a group that there is not.
    """
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise ValueError(f"--groups must be among {', '.join(GROUPS)}; got {unknown[0]!r}")
    return [variant for group in groups for variant in GROUPS[group]]


def _method(name: str, *overlays: str, shows_skill: bool = False, is_trained: bool = True) -> Variant:
    # groups of eight rollouts of half as many problems: as many rollouts a step as the others
    overrides = ("--data.init_args.batch_size=4",) if "method/grpo" in overlays else ()
    return Variant(
        group="methods",
        name=name,
        overlays=overlays,
        overrides=overrides,
        shows_skill=shows_skill,
        is_trained=is_trained,
    )


def _ablation(name: str, *overlays: str, overrides: tuple[str, ...] = ()) -> Variant:
    return Variant(group="ablations", name=name, overlays=overlays, overrides=overrides)


METHODS = (
    _method("base", is_trained=False),
    _method("GRPO", "method/grpo"),
    _method("GRPO+Skill", "method/grpo", shows_skill=True),
    _method("OPSD", "method/opsd"),
    _method("OPSD+Skill", "method/opsd", shows_skill=True),
    _method("SGSD"),
)
ABLATIONS = (
    _ablation("imitate every teacher", "method/sgsd_imitate"),
    _ablation("one teacher", "method/sgsd_one_teacher"),
    _ablation("no gate", "method/sgsd_no_gate"),
    _ablation("no clip", "method/sgsd_no_clip"),
    _ablation("no threshold", "method/sgsd_no_threshold"),
    _ablation("uniform weights", "method/sgsd_uniform"),
    _ablation("local support", "method/sgsd_local_support"),
    _ablation("SGSD + GRPO", "method/sgsd_grpo", overrides=("--data.init_args.batch_size=4",)),
)


def _sweep(group: str, setting: float, *overrides: str, pairs: Pairs | None = None) -> Variant:
    """A setting that is the default has no overrides, so that its runs are shared with the other groups."""
    overrides = () if (group, setting) in DEFAULTS else overrides
    return Variant(group=group, name=f"{setting:g}", setting=setting, overrides=overrides, pairs=pairs)


def _places(truth: str) -> list[int]:
    """Of the bank's pairs that speak of the order of operations, or of nothing, those with this truth."""
    skills = load_toy_bank()["general_skills"]
    return [i for i, item in enumerate(skills) if item["toy_truth"] == truth and item["toy_subject"] != "minus"]


def _bank_of(truths: Sequence[str]) -> Pairs:
    """One pair for each truth; skills and mistakes of a truth are combined anew where its pairs run out."""
    pools = {truth: list(product(_places(truth), _places(truth))) for truth in dict.fromkeys(truths)}
    for pool in pools.values():
        pool.sort(key=lambda pair: (pair[0] != pair[1], pair))  # pairs as the bank has them come first
    return tuple(pools[truth].pop(0) for truth in truths)


def _shared_bank(misleading_share: float) -> Pairs:
    num_misleading = round(misleading_share * PAIRS_IN_SHARED_BANK)
    return _bank_of(["misleading"] * num_misleading + ["helpful"] * (PAIRS_IN_SHARED_BANK - num_misleading))


def _large_bank(num_pairs: int) -> Pairs:
    """As many pairs, in shuffled order, so that the first K of them are of all kinds."""
    truths = ["helpful", "misleading", "irrelevant"] * num_pairs
    # four helpful and four irrelevant combinations are all there are of these
    chosen = truths[:12] + ["misleading"] * (num_pairs - 12)
    random.Random(0).shuffle(chosen)
    return _bank_of(chosen)


def _noisy(flip_frac: float) -> tuple[str, ...]:
    return (
        f"{MODEL}.verifier=sgsd_lightning.verifiers.NoisyVerifier",
        f"{MODEL}.verifier.init_args.verifier=sgsd_lightning.verifiers.MathAnswer",
        f"{MODEL}.verifier.init_args.flip_frac={flip_frac}",
    )


def _baseline(name: str, *overrides: str) -> Variant:
    return Variant(group="outcome baseline", name=name, overrides=overrides)


OUTCOME_BASELINES = (
    _baseline("none"),
    *(_baseline(name, f"{OBJECTIVE}.outcome_baseline={name}") for name in ("group", "batch", "running")),
    _baseline("none, no threshold", f"{OBJECTIVE}.stance_threshold=0.0"),
    _baseline("group, no threshold", f"{OBJECTIVE}.outcome_baseline=group", f"{OBJECTIVE}.stance_threshold=0.0"),
)
"""Outcomes compared with a mean, which is ours: see `OutcomeBaseline`."""


def _single(name: str, *overlays: str, overrides: tuple[str, ...] = ()) -> Variant:
    one_each = (f"{MODEL}.rollouts.init_args.group_size=1", "--data.init_args.batch_size=32")
    return Variant(group="one rollout per problem", name=name, overlays=overlays, overrides=(*one_each, *overrides))


ONE_ROLLOUT = (
    _single("SGSD"),
    _single("SGSD, running baseline", overrides=(f"{OBJECTIVE}.outcome_baseline=running",)),
    _single("OPSD", "method/opsd"),
)
"""Where GRPO has no group to compare with."""


def _grpo_noise(flip_frac: float) -> Variant:
    overrides = ("--data.init_args.batch_size=4", *(_noisy(flip_frac) if flip_frac else ()))
    return Variant(
        group="verifier noise of GRPO",
        name=f"{flip_frac:g}",
        setting=flip_frac,
        overlays=("method/grpo",),
        overrides=overrides,
    )


GROUPS: dict[str, tuple[Variant, ...]] = {
    "methods": METHODS,
    "ablations": ABLATIONS,
    "number of teachers": tuple(
        _sweep("number of teachers", k, f"{CONTEXTS}.num_contexts={k}", pairs=_large_bank(16)) for k in NUM_CONTEXTS
    ),
    "gate temperature": tuple(
        _sweep("gate temperature", tau, f"{OBJECTIVE}.gate_temperature={tau}") for tau in GATE_TEMPERATURES
    ),
    "stance threshold": tuple(
        _sweep("stance threshold", theta, f"{OBJECTIVE}.stance_threshold={theta}") for theta in STANCE_THRESHOLDS
    ),
    "misleading share": tuple(
        _sweep("misleading share", share, f"{CONTEXTS}.num_contexts={PAIRS_IN_SHARED_BANK}", pairs=_shared_bank(share))
        for share in MISLEADING_SHARES
    ),
    "verifier noise": tuple(_sweep("verifier noise", share, *_noisy(share)) for share in FLIPPED_SHARES),
    "verifier noise of GRPO": tuple(_grpo_noise(share) for share in FLIPPED_SHARES),
    "outcome baseline": OUTCOME_BASELINES,
    "one rollout per problem": ONE_ROLLOUT,
}
