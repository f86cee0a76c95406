"""Results of two runs, compared bit for bit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor

from benchmarks.same_numbers.results import Results, Row

MISSING = "(missing)"
_PLACE = re.compile(r"\[[0-9]+\]")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two runs part, and what each has there."""

    file: str
    step: int | None
    key: str
    old: str
    new: str

    def __str__(self) -> str:
        step = "" if self.step is None else f", step {self.step}"
        return f"{self.file}{step}, {self.key}: {self.old} in the old tree, {self.new} in the new"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two runs have in common.

    Attributes:
        first: the earliest difference, if there is one.
        num_values: how many numbers, texts and tensors were compared.
        only_old: ``file: key`` of what the new tree does not have at all.
        only_new: ``file: key`` of what the old tree does not have at all.
    """

    first: Difference | None
    num_values: int
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]


def compare(old: Results, new: Results, may_vanish: Sequence[str] = ()) -> Comparison:
    """Compare every value that both trees name; what vanished is a difference unless a pattern allows it."""
    old_keys, new_keys = _keys(old), _keys(new)
    only_old = tuple(name for name in old_keys if name not in new_keys)
    vanished = [name for name in only_old if not any(fnmatch(name, pattern) for pattern in may_vanish)]
    one_sided = set(only_old) | {name for name in new_keys if name not in old_keys}
    differences = [d for file in old if file in new for d in _differences(file, old[file], new[file], one_sided)]
    differences += [_vanished(name) for name in vanished]
    if not old:
        differences.append(Difference("run folder", None, "any result", MISSING, MISSING))
    return Comparison(
        # min keeps the order of files among equals
        first=min(differences, key=lambda d: math.inf if d.step is None else d.step, default=None),
        num_values=sum(_name(file, key) not in one_sided for file in old for row in old[file] for key in row.values),
        only_old=only_old,
        only_new=tuple(name for name in new_keys if name not in old_keys),
    )


def _keys(results: Results) -> dict[str, None]:
    """Every ``file: key`` once, in order; the places of a list are one key."""
    return {_name(file, key): None for file, rows in results.items() for row in rows for key in row.values}


def _name(file: str, key: str) -> str:
    return f"{file}: {_PLACE.sub('[]', key)}"


def _vanished(name: str) -> Difference:
    file, _, key = name.partition(": ")
    return Difference(file, None, key, "present", MISSING)


def _differences(file: str, old: list[Row], new: list[Row], one_sided: set[str]) -> Iterator[Difference]:
    """The first difference of a file's rows, taken one by one."""
    for mine, other in zip(old, new, strict=False):
        for key in {**mine.values, **other.values}:
            if _name(file, key) in one_sided:
                continue
            found = _difference(mine.values.get(key, MISSING), other.values.get(key, MISSING))
            if found:
                yield Difference(file, mine.step, key, *found)
                return
    if len(old) != len(new):
        longer = old if len(old) > len(new) else new
        row = longer[min(len(old), len(new))]
        yield Difference(file, row.step, "number of rows", str(len(old)), str(len(new)))


def _difference(old: Any, new: Any) -> tuple[str, str] | None:
    """Both values as text, if a bit is different."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return _tensor_difference(old, new)
    # repr tells 1 from 1.0 and -0.0 from 0.0, and takes one nan for another
    shown = _shown(old), _shown(new)
    return None if shown[0] == shown[1] else shown


def _tensor_difference(old: Tensor, new: Tensor) -> tuple[str, str] | None:
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return _shown(old), _shown(new)
    is_different = (_bytes(old) != _bytes(new)).any(1).nonzero().flatten()
    if not len(is_different):
        return None
    place = int(is_different[0])
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), old.shape))
    where = f"at {list(index)}, the first of {len(is_different)} of {old.numel()}"
    mine, other = (repr(tensor.reshape(-1)[place].item()) for tensor in (old, new))
    return f"{mine} ({where})", other


def _bytes(tensor: Tensor) -> Tensor:
    """One row of bytes per element."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).reshape(-1, tensor.element_size())


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return value if value is MISSING else repr(value)
