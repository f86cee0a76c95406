"""A run's plan as text: tables for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from sgsd_lightning.planning.configuration import ReadConfiguration
from sgsd_lightning.planning.memory import FITTING_FRAC, MemoryPlan, fits, plan_memory
from sgsd_lightning.planning.run_settings import RunSettings
from sgsd_lightning.planning.step_flops import step_flops

GIB = 2**30
NOT_MEASURED = "Arithmetic: not checked against measurement on a GPU."


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """Cells as they are to be read; the first column is a name, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As GitHub renders it."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [_markdown_row(row) for row in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines]) if self.title else "\n".join(lines)

    def rich(self) -> Table:
        """As a terminal shows it."""
        table = Table(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row, style="bold" if row[0] == "total" else None)
        return table


def gib(num_bytes: float) -> str:
    """Format bytes in GiB with two decimals; a dot for 0."""
    if not num_bytes:
        return "·"
    return f"{num_bytes / GIB:.2f}" if num_bytes >= 0.005 * GIB else "<0.01"


def memory_table(plan: MemoryPlan) -> TextTable:
    """Items by phases."""
    rows = [
        (item.name, *(gib(item.bytes_by_phase.get(phase, 0)) for phase in plan.phases))
        for item in plan.items
        if any(item.bytes_by_phase.get(phase, 0) for phase in plan.phases)
    ]
    return TextTable(
        title="GiB on each device, by phase",
        columns=("item", *plan.phases),
        rows=(*rows, ("total", *(gib(plan.total(phase)) for phase in plan.phases))),
    )


def card_table(plan: MemoryPlan, cards_gib: Sequence[float]) -> TextTable:
    """Whether the peaks of training and of validation fit."""
    peaks = {"training": plan.training_peak}
    if plan.evaluation_peak is not None:
        peaks["validation"] = plan.evaluation_peak
    rows = tuple(
        (f"{card:g} GiB", *(cell for peak in peaks.values() for cell in _peak_cells(peak, card * GIB)))
        for card in cards_gib
    )
    return TextTable(
        title=f"Does it fit? A peak may be {FITTING_FRAC:.0%} of a card",
        columns=("card", *(column for name in peaks for column in (f"{name} GiB", "of the card", "fits"))),
        rows=rows,
    )


def _peak_cells(peak: int, card_bytes: float) -> tuple[str, str, str]:
    return f"{peak / GIB:.1f}", f"{peak / card_bytes:.0%}", "yes" if fits(peak, card_bytes) else "no"


def flops_table(run: RunSettings) -> TextTable:
    """Phases by kinds."""
    phases = step_flops(run)
    all_executed = sum(flops.total for flops in phases.values())
    rows = [
        (name, _tera(flops.model), _tera(flops.recompute), f"{100 * flops.total / all_executed:.0f} %")
        for name, flops in phases.items()
    ]
    model, recompute = (sum(getattr(flops, kind) for flops in phases.values()) for kind in ("model", "recompute"))
    return TextTable(
        title=f"Teraflop of one optimizer step, all {run.num_devices} devices together"
        if run.num_devices > 1
        else "Teraflop of one optimizer step",
        columns=("phase", "model", "recomputed", "share"),
        rows=(*rows, ("total", _tera(model), _tera(recompute), "100 %")),
    )


def summary_lines(read: ReadConfiguration) -> list[str]:
    """Summarise the run in a few sentences."""
    run, shape = read.settings, read.settings.shape
    trained = f"{run.num_trained / 1e6:,.1f} million trained" + (" (LoRA)" if shape.has_adapters else "")
    precision = f"weights {run.dtype}" + (f", autocast to {run.autocast_dtype}" if run.autocast_dtype else "")
    if run.is_sharded and run.param_dtype:
        precision += f", gathered as {run.param_dtype}"
    checkpointing = "with" if run.gradient_checkpointing else "without"
    num_step_rollouts = run.num_step_rollouts * run.num_devices
    return [
        f"{read.model_name}: {shape.num_parameters / 1e6:,.1f} million parameters, {trained}; {precision}; "
        f"{checkpointing} gradient checkpointing.",
        f"{run.strategy} on {run.num_devices} {'CPU process' if run.accelerator == 'cpu' else 'GPU'}"
        f"{'' if run.num_devices == 1 else 's' if run.accelerator == 'gpu' else 'es'}; rollouts: {run.num_rollouts} a "
        f"micro-batch and device, {num_step_rollouts} a step; {run.num_contexts} teachers ({run.teacher}) each.",
        f"Tokens: prompts {run.prompt_tokens}, teachers' prompts {run.teacher_prompt_tokens}, completions "
        f"{run.completion_tokens}. Head by {run.head}.",
    ]


def assumption_lines(read: ReadConfiguration) -> list[str]:
    """List the assumptions, the particular before the general."""
    return [
        *read.assumptions,
        "what is approximate is listed in docs/memory.md and in sgsd_lightning/planning/memory.py",
        NOT_MEASURED,
    ]


def print_plan(read: ReadConfiguration, cards_gib: Sequence[float], console: Console) -> None:
    """Tables on a terminal."""
    for line in summary_lines(read):
        console.print(line, highlight=False)
    for table in _tables(read, cards_gib):
        console.print(table.rich())
    console.print("Assumed:")
    for line in assumption_lines(read):
        console.print(f"  - {line}", highlight=False, markup=False)


def plan_markdown(read: ReadConfiguration, cards_gib: Sequence[float]) -> str:
    """The same as Markdown, without a final newline."""
    parts = [
        "\n".join(summary_lines(read)),
        *(table.markdown() for table in _tables(read, cards_gib)),
        "Assumed:\n\n" + "\n".join(f"- {line}" for line in assumption_lines(read)),
    ]
    return "\n\n".join(parts)


def _tables(read: ReadConfiguration, cards_gib: Sequence[float]) -> list[TextTable]:
    plan = plan_memory(read.settings)
    return [memory_table(plan), card_table(plan, cards_gib), flops_table(read.settings)]


def _tera(flops: int) -> str:
    if not flops:
        return "·"
    tera = flops / 1e12
    return f"{tera:,.1f}" if tera >= 1 else f"{tera:.2g}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
