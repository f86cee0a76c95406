"""The weights in a checkpoint: trained parameters, and a teacher's own values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from sgsd_lightning.policy import PolicyView

TEACHER_PREFIX = "teacher_weights."


def restorable_names(model: PreTrainedModel, teacher_weights: PolicyView) -> set[str]:
    """Names in the module's state dict of weights that the policy's source gives back, so that no checkpoint need.

    Frozen ones, and those of a teacher that stays as it was before training.
    """
    names = {
        f"model.{name}"
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    if not teacher_weights.is_saved:
        names |= {f"{TEACHER_PREFIX}{name}" for name, _ in teacher_weights.named_parameters()}
    return names


def complete_weights(checkpoint: dict[str, Any], current: Mapping[str, Any], restorable: Iterable[str]) -> None:
    """Put into a checkpoint the weights that it leaves out, and out of it those that only training uses.

    Args:
        checkpoint: With the weights under ``state_dict``; or, where the strategy has loaded them already, with their
            names under ``state_dict_names``.
        current: The module's state dict.
        restorable: As `restorable_names` gives them.

    Raises:
        ValueError: where the checkpoint is of another policy or another teacher.
    """
    weights = checkpoint.get("state_dict")
    names = set(checkpoint.get("state_dict_names", ())) if weights is None else set(weights)
    restorable = set(restorable)
    missing = sorted(current.keys() - restorable - names)
    if missing:
        raise ValueError(
            f"the checkpoint lacks {len(missing)} of the weights that this configuration trains or keeps, such as "
            f"{missing[0]}; take the policy and the teacher_weights that it was written with"
        )
    unknown = names - current.keys()
    foreign = sorted(name for name in unknown if not name.startswith(TEACHER_PREFIX))
    if foreign:
        raise ValueError(
            f"the checkpoint holds {len(foreign)} weights that this configuration's policy does not have, such as "
            f"{foreign[0]}; take the policy that it was written with"
        )
    if weights is None:
        return
    for name in unknown:
        del weights[name]
    _check_shapes(weights, current)
    weights.update({name: current[name] for name in restorable})


def _check_shapes(weights: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        if weight.shape != current[name].shape:
            raise ValueError(
                f"the checkpoint's {name} has the shape {list(weight.shape)}, this configuration's policy "
                f"{list(current[name].shape)}; take the model that it was written with"
            )
