"""What it saves to compute once what several prompts begin with: whole prompts, and the beginnings of others.

    python -m benchmarks.shared_prompts --out benchmarks/results/shared_prompts_cpu.json

The same sequences are scored in two layouts, `packed` (every sequence with its prompt) and `shared` (a beginning
once), in turns: the teachers without gradient in passes of a budget, the student forward and backward in one row.
Times hold everything from the token ids on: choosing passes, packing, the model, the head. On a CPU they are those of
the process and not of the clock, since what else runs there would count. Where both layouts have the same tokens they
run the same operations: the difference of those times is what the others may be off by.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.machine import provenance
from benchmarks.markdown import markdown_table
from benchmarks.timing import MIN_REPEATS, Spread, time_runs
from sgsd_lightning.policy import RandomPolicy
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import RowLayout, TokenSequence, forward_passes, pack

LAYOUTS: tuple[RowLayout, ...] = ("packed", "shared")
HEADER = ("case", "who", "G", "tokens packed", "tokens shared", "ms packed", "ms shared", "time saved")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training step's sequences, with lengths around those given."""

    name: str
    num_problems: int
    samples_per_prompt: int
    num_contexts: int
    prompt_tokens: int
    teacher_prompt_tokens: int
    common_tokens: int
    """What the teacher prompts of one problem begin with in common."""
    completion_tokens: tuple[int, int]
    """The least and the most; spread evenly."""
    tokens_per_forward: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """One row of the table."""

    case: str
    who: str
    samples_per_prompt: int
    num_tokens: dict[str, int]
    """By layout: what goes through the layers."""
    ms: dict[str, float]
    """By layout: median."""
    ms_p20_p80: dict[str, tuple[float, float]]
    largest_difference: float
    """Between the layouts' log-probabilities, in nats."""

    @property
    def time_saved_frac(self) -> float:
        return 1 - self.ms["shared"] / self.ms["packed"]


def toy_case(samples_per_prompt: int) -> Case:
    """Lengths as in configs/sgsd_toy.yaml."""
    return Case(
        name="toy",
        num_problems=32 // samples_per_prompt,
        samples_per_prompt=samples_per_prompt,
        num_contexts=8,
        prompt_tokens=20,
        teacher_prompt_tokens=48,
        common_tokens=5,
        completion_tokens=(15, 30),
        tokens_per_forward=2048,
    )


def small_case(samples_per_prompt: int) -> Case:
    """Lengths of mathematics problems, with fewer rollouts than on a GPU; prompts of one problem have nothing alike."""
    return Case(
        name="small Qwen3",
        num_problems=8 // samples_per_prompt,
        samples_per_prompt=samples_per_prompt,
        num_contexts=2,
        prompt_tokens=300,
        teacher_prompt_tokens=300,
        common_tokens=0,
        completion_tokens=(200, 400),
        tokens_per_forward=16384,
    )


def common_case() -> Case:
    """One rollout a problem, and teacher prompts that begin with the problem, as `ChatPrompts` has them by default."""
    return Case(
        name="problem first",
        num_problems=2,
        samples_per_prompt=1,
        num_contexts=8,
        prompt_tokens=100,
        teacher_prompt_tokens=250,
        common_tokens=100,
        completion_tokens=(300, 700),
        tokens_per_forward=16384,
    )


def sequences_of(case: Case, vocab_size: int, *, is_teacher: bool) -> list[TokenSequence]:
    """Random tokens; completions of one problem under each of its prompts."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, vocab_size, (length,), generator=generator).tolist())

    least, most = case.completion_tokens
    sequences = []
    for problem in range(case.num_problems):
        if is_teacher:
            common, own = ids(case.common_tokens), case.teacher_prompt_tokens - case.common_tokens
            prompts = [common + ids(own + (problem + k) % 7) for k in range(case.num_contexts)]
        else:
            prompts = [ids(case.prompt_tokens + problem % 7)]
        num_tokens = torch.randint(least, most + 1, (case.samples_per_prompt,), generator=generator).tolist()
        completions = [ids(length) for length in num_tokens]
        sequences += [
            TokenSequence.causal(prompt_ids, completion) for completion in completions for prompt_ids in prompts
        ]
    return sequences


def teach(model: PreTrainedModel, sequences: Sequence[TokenSequence], layout: RowLayout, budget: int) -> torch.Tensor:
    """[tokens of all sequences] log-probabilities, in the order of the sequences."""
    scores: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for indices in forward_passes(sequences, budget, layout):
            chosen = [sequences[index] for index in indices]
            logprob = model.score(pack(chosen, layout).to(model.device)).logprob
            scores |= zip(indices, logprob.split([len(s.targets) for s in chosen]), strict=True)
    return torch.cat([scores[index] for index in range(len(sequences))])


def study(model: PreTrainedModel, sequences: Sequence[TokenSequence], layout: RowLayout) -> torch.Tensor:
    """The student's forward and backward pass, in one row."""
    model.zero_grad(set_to_none=True)
    logprob = model.score(pack(sequences, layout).to(model.device)).logprob
    logprob.sum().backward()
    return logprob.detach()


def num_tokens_run(sequences: Sequence[TokenSequence], layout: RowLayout, budget: int) -> int:
    """Tokens that go through the layers."""
    passes = forward_passes(sequences, budget, layout)
    return sum(pack([sequences[index] for index in indices], layout).input_ids.numel() for indices in passes)


def measure(case: Case, model: PreTrainedModel, seconds: float) -> list[Found]:
    """Teachers and student of one case."""
    found = []
    for who in ("teachers", "student"):
        sequences = sequences_of(case, model.config.vocab_size, is_teacher=who == "teachers")
        budget = case.tokens_per_forward if who == "teachers" else sys.maxsize

        def run(layout: RowLayout, who: str = who, sequences: Any = sequences, budget: int = budget) -> torch.Tensor:
            return teach(model, sequences, layout, budget) if who == "teachers" else study(model, sequences, layout)

        difference = (run("packed") - run("shared")).abs().max().item()
        runs: dict[str, Callable[[], object]] = {layout: partial(run, layout) for layout in LAYOUTS}
        spreads = _spreads(runs, model.device, seconds)
        found.append(
            Found(
                case=case.name,
                who=who,
                samples_per_prompt=case.samples_per_prompt,
                num_tokens={layout: num_tokens_run(sequences, layout, budget) for layout in LAYOUTS},
                ms={layout: spread.median for layout, spread in spreads.items()},
                ms_p20_p80={layout: (spread.p20, spread.p80) for layout, spread in spreads.items()},
                largest_difference=difference,
            )
        )
        print(table(found[-1:]).splitlines()[-1], flush=True)
    return found


def _spreads(runs: dict[str, Callable[[], object]], device: torch.device, seconds: float) -> dict[str, Spread]:
    if device.type == "cuda":
        return time_runs(runs, device, seconds)
    found: dict[str, list[float]] = {name: [] for name in runs}
    until = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < until or len(found["packed"]) < MIN_REPEATS:
        for name, run in runs.items():
            start = time.process_time()
            run()
            found[name].append(1e3 * (time.process_time() - start))
    return {name: Spread.of(milliseconds) for name, milliseconds in found.items()}


def table(rows: Sequence[Found]) -> str:
    """All rows, for readers."""
    cells = [
        [
            row.case,
            row.who,
            str(row.samples_per_prompt),
            *(str(row.num_tokens[layout]) for layout in LAYOUTS),
            *(f"{row.ms[layout]:.4g}" for layout in LAYOUTS),
            f"{100 * row.time_saved_frac:.0f} %",
        ]
        for row in rows
    ]
    return markdown_table(HEADER, cells, range(2, len(HEADER)))


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seconds", type=float, default=5.0, help="about how long each layout is timed per row")
    options.add_argument("--out", type=Path, help="the result file")
    chosen = options.parse_args(arguments)
    toy = RandomPolicy(hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=4, intermediate_size=192).load_model()
    small = RandomPolicy(hidden_size=256, num_layers=2, num_heads=4, num_kv_heads=2, intermediate_size=768).load_model()
    cases = (
        [(toy_case(size), toy) for size in (1, 4)]
        + [(small_case(size), small) for size in (1, 4, 8)]
        + [(common_case(), small)]
    )
    rows: list[Found] = []
    for case, model in cases:
        bind_score(model)
        rows += measure(case, model, chosen.seconds)
    print(table(rows))
    if chosen.out is not None:
        header = provenance("benchmarks.shared_prompts", list(arguments or sys.argv[1:]), torch.device("cpu"))
        body = [{**asdict(row), "time_saved_frac": row.time_saved_frac} for row in rows]
        chosen.out.write_text(json.dumps({**header, "rows": body}, indent=1) + "\n")


if __name__ == "__main__":
    main()
