"""The harness: every provider's answer is checked, and only right ones are timed."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.cases import SMALL, Inputs, Mode, Size, make_inputs
from benchmarks.exact import reference_dtype
from benchmarks.machine import bare_product_flops_per_second
from benchmarks.memory import workspace_bytes
from benchmarks.providers import Answer, Precision, Provider, Question, Run, errors_of
from benchmarks.timing import Spread, time_runs

Status = Literal["measured", "wrong", "unavailable", "out of memory", "failed", "skipped"]


Tolerance = Mapping[str, Mapping[Precision, float]]


class Workload(ABC):
    """One kernel's benchmark: its sizes, its arithmetic, its truth and its competitors."""

    name: str
    """Also the name of its result files."""
    tolerance: ClassVar[Tolerance]
    """The largest error of each part of an answer, by what a provider promises."""

    @abstractmethod
    def sizes(self) -> list[Size]:
        """The sizes of a full run, the most telling first."""

    def small_sizes(self) -> list[Size]:
        """The sizes of a run of seconds on a CPU."""
        return [SMALL]

    @abstractmethod
    def modes(self, size: Size) -> Sequence[Mode]:
        """The modes that are measured at ``size``."""

    @abstractmethod
    def required_flops(self, size: Size, mode: Mode) -> int:
        """What the mathematics needs: the forward products, and one more each for a gradient of hidden and of the
        head. Recomputation and repeated students are not in it."""

    @abstractmethod
    def product_rows(self, size: Size, mode: Mode) -> int:
        """Rows of the bare product that the rate is compared with."""

    @abstractmethod
    def reference(self, inputs: Inputs, mode: Mode, question: Question, dtype: torch.dtype) -> Answer:
        """The truth, computed in ``dtype``."""

    @abstractmethod
    def providers(self) -> list[Provider]:
        """Everyone who competes, whether or not it can run here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What became of one provider at one size in one mode."""

    kernel: str
    size: Size
    mode: Mode
    provider: str
    status: Status
    reason: str = ""
    """Of every status but ``measured``."""
    note: str = ""
    question: Question = "rows"
    reference: str = ""
    """The dtype of the reference."""
    errors: dict[str, float] = field(default_factory=dict)
    milliseconds: Spread | None = None
    workspace_bytes: int | None = None
    required_flops: int = 0
    flops_per_second: float | None = None
    bare_product_flops_per_second: float | None = None
    share_of_bare_product: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "size": self.size.as_dict()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to measure."""

    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    seconds: float = 0.5
    """About how long each provider is timed."""
    repeats: int | None = None
    """Fixes the number of repeats instead."""
    deadline: float = float("inf")
    """On `time.monotonic`'s clock; what would begin later is skipped."""
    only: tuple[str, ...] = ()
    """Providers whose name holds one of these; all where it is empty."""
    modes: tuple[Mode, ...] = ()
    """Empty for all."""

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline


def measure(workload: Workload, sizes: Sequence[Size], settings: Settings) -> Iterator[list[Row]]:
    """The rows of every size and mode, case by case; a case is one size in one mode."""
    for size in sizes:
        inputs: Inputs | None = None
        for mode in workload.modes(size):
            if settings.modes and mode not in settings.modes:
                continue
            case = _Case(workload, size, mode, settings)
            if inputs is None and not settings.is_late:
                inputs = make_inputs(size, settings.device, settings.dtype)
            yield case.skipped() if inputs is None or settings.is_late else case.measure(inputs)
        inputs = None
        _release(settings.device)


class _Case:
    def __init__(self, workload: Workload, size: Size, mode: Mode, settings: Settings) -> None:
        self._workload = workload
        self._size = size
        self._mode = mode
        self._settings = settings
        self._flops = workload.required_flops(size, mode)
        self._dtype = reference_dtype(self._flops, settings.device)
        only = settings.only
        self._providers = [
            provider
            for provider in workload.providers()
            if mode in provider.modes and (not only or any(part in provider.name for part in only))
        ]

    def skipped(self) -> list[Row]:
        return [self._row(provider, "skipped", _OUT_OF_TIME) for provider in self._providers]

    def measure(self, inputs: Inputs) -> list[Row]:
        rows: dict[str, Row] = {}
        runs: dict[str, Run] = {}
        errors: dict[str, dict[str, float]] = {}
        if self._settings.device.type == "cuda":
            torch.compiler.reset()  # else torch.compile gives up after a few sizes and runs eagerly
        truth = _Truths(self._workload, inputs, self._mode, self._dtype)
        for provider in self._providers:
            outcome = self._check(provider, inputs, truth)
            if isinstance(outcome, Row):
                rows[provider.name] = outcome
            else:
                runs[provider.name], errors[provider.name] = outcome
            _release(self._settings.device)
        truth.forget()
        _release(self._settings.device)
        rows |= self._time(runs, errors)
        return [rows[provider.name] for provider in self._providers]

    def _check(self, provider: Provider, inputs: Inputs, truth: _Truths) -> Row | tuple[Run, dict[str, float]]:
        """A run that was right, with its errors, or the row that says what is the matter."""
        if self._settings.is_late:
            return self._row(provider, "skipped", _OUT_OF_TIME)
        reason = provider.why_unavailable(self._settings.device)
        if reason is not None:
            return self._row(provider, "unavailable", reason)
        expected = truth.of(provider.question)
        try:
            run = provider.build(inputs, self._mode)
        except NotImplementedError as error:  # how a provider declines a size or a mode
            return self._row(provider, "unavailable", _first_line(error))
        except Exception as error:
            return self._failure(provider, error)
        try:
            errors = errors_of(run(), expected)
        except Exception as error:  # a peer may fail in any way, and the others are still worth measuring
            return self._failure(provider, error)
        faults = self._faults(provider, errors)
        if faults:
            return self._row(provider, "wrong", "; ".join(faults), errors=errors)
        return run, errors

    def _faults(self, provider: Provider, errors: Mapping[str, float]) -> list[str]:
        limits = {name: self._workload.tolerance[name][provider.precision] for name in errors}
        return [
            f"{name} is off by {error:.1e}, more than {limits[name]:.0e}"
            for name, error in errors.items()
            if not error <= limits[name]
        ]

    def _time(self, runs: Mapping[str, Run], errors: Mapping[str, dict[str, float]]) -> dict[str, Row]:
        """Rows of the runs that were right. On CUDA one by one, so that one that runs out of memory harms nobody."""
        settings = self._settings
        if not runs:
            return {}
        bare = bare_product_flops_per_second(
            self._workload.product_rows(self._size, self._mode),
            self._size.width,
            self._size.vocabulary,
            settings.dtype,
            settings.device,
            settings.seconds,
        )
        by_name = {provider.name: provider for provider in self._providers}
        groups = [{name: run} for name, run in runs.items()] if settings.device.type == "cuda" else [dict(runs)]
        rows: dict[str, Row] = {}
        for group in groups:
            if settings.is_late:
                rows |= {name: self._row(by_name[name], "skipped", _OUT_OF_TIME, errors=errors[name]) for name in group}
                continue
            try:
                spreads = time_runs(group, settings.device, settings.seconds, settings.repeats)
                needed = {name: workspace_bytes(run, settings.device) for name, run in group.items()}
            except Exception as error:  # as in the check
                rows |= {name: self._failure(by_name[name], error) for name in group}
                continue
            for name, spread in spreads.items():
                rate = self._flops / (1e-3 * spread.median)
                rows[name] = self._row(
                    by_name[name],
                    "measured",
                    errors=errors[name],
                    milliseconds=spread,
                    workspace_bytes=needed[name],
                    flops_per_second=rate,
                    bare_product_flops_per_second=bare,
                    share_of_bare_product=rate / bare,
                )
            _release(settings.device)
        return rows

    def _failure(self, provider: Provider, error: Exception) -> Row:
        if isinstance(error, torch.OutOfMemoryError):
            return self._row(provider, "out of memory", _first_line(error))
        return self._row(provider, "failed", f"{type(error).__name__}: {_first_line(error)}")

    def _row(self, provider: Provider, status: Status, reason: str = "", **found: Any) -> Row:
        return Row(
            kernel=self._workload.name,
            size=self._size,
            mode=self._mode,
            provider=provider.name,
            status=status,
            reason=reason,
            note=provider.note,
            question=provider.question,
            reference=str(self._dtype).removeprefix("torch."),
            required_flops=self._flops,
            **found,
        )


_OUT_OF_TIME = "the time budget was used up"


class _Truths:
    """The reference of each question, computed when first asked for."""

    def __init__(self, workload: Workload, inputs: Inputs, mode: Mode, dtype: torch.dtype) -> None:
        self._compute: Callable[[Question], Answer] = lambda question: workload.reference(inputs, mode, question, dtype)
        self._known: dict[Question, dict[str, Tensor]] = {}

    def of(self, question: Question) -> Answer:
        if question not in self._known:
            self._known[question] = {name: part.detach() for name, part in self._compute(question).items()}
        return self._known[question]

    def forget(self) -> None:
        self._known.clear()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else "no message"


def _release(device: torch.device) -> None:
    """Give back what the last provider left, so that the next one has all of the device's memory."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
