"""The runs, written in the oldest names that `renames.py` knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RUN_FOLDER = "run"
SMALL = (
    "--data.init_args.batch_size=2",
    "--data.init_args.validation.init_args.num=4",
    "--data.init_args.test.init_args.num=4",
    "--trainer.val_check_interval=2",
    "--trainer.check_val_every_n_epoch=null",
)
TWO_CPUS = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--data.init_args.batch_size=1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Commands of `sgsd` that are called one after the other in one folder."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    num_processes: int = 1
    needs: tuple[str, ...] = ()
    """Files, relative to the folder that holds the checkout; the run is skipped without them."""
    may_differ: str = ""
    """Why another result is no fault; it is reported all the same."""

    def reason_to_skip(self, beside: Path) -> str:
        """A clause that says what is missing; empty if nothing is."""
        missing = [path for path in self.needs if not (beside / path).exists()]
        return f"{beside / missing[0]} does not exist" if missing else ""


def _fit(config: str, *arguments: str, max_steps: int = 3) -> tuple[str, ...]:
    return (
        "fit",
        f"--config={config}",
        *arguments,
        f"--trainer.max_steps={max_steps}",
        f"--trainer.default_root_dir={RUN_FOLDER}",
    )


def _toy(*arguments: str, max_steps: int = 3) -> tuple[str, ...]:
    return _fit("sgsd_toy", *arguments, *SMALL, max_steps=max_steps)


def _growing(*arguments: str) -> tuple[str, ...]:
    return _fit("sgsd_toy_growing", *arguments, "--bank_maintenance.every_n_steps=2", *SMALL, max_steps=6)


_TEST = (
    "test",
    "--config=sgsd_toy",
    *SMALL,
    f"--trainer.default_root_dir={RUN_FOLDER}",
    "--ckpt_path=last",
)

RUNS = (
    Run(name="sgsd", commands=(_toy(), _TEST)),
    Run(name="opsd", commands=(_toy("--config=method/opsd"),)),
    Run(name="grpo", commands=(_toy("--config=method/grpo"),)),
    Run(
        # two updates of the same rollouts, which no context is built for
        name="grpo_reuse",
        commands=(_toy("--config=method/grpo", "--model.init_args.updates_per_batch=2", max_steps=4),),
    ),
    Run(name="sgsd_grpo", commands=(_toy("--config=method/sgsd_grpo"),)),
    Run(name="growing", commands=(_growing(),)),
    Run(
        name="growing_reuse",
        commands=(_growing("--config=method/sgsd_grpo", "--model.init_args.updates_per_batch=2"),),
        may_differ="contexts of reused rollouts were once built again per update",
    ),
    Run(
        name="lora",
        commands=(
            _fit(
                "sgsd_math_smoke",
                "--model.init_args.policy.init_args.lora.rank=4",
                "--model.init_args.policy.init_args.lora.alpha=8",
                "--model.init_args.contexts.init_args.num_contexts=2",
                "--model.init_args.sampling.max_new_tokens=16",
                "--model.init_args.samples_per_prompt=2",
                "--data.init_args.batch_size=2",
                "--trainer.limit_val_batches=0",
            ),
        ),
        needs=("shared/data/math_train_3k.jsonl", "shared/data/aime25.jsonl", "shared/data/skill_bank_qwen3_1b.json"),
    ),
    Run(name="ddp", commands=(_toy(*TWO_CPUS, "--trainer.strategy=ddp"),), num_processes=2),
    Run(
        name="fsdp2",
        commands=(
            _toy(
                "--config=scale/fsdp2",
                *TWO_CPUS,
                "--trainer.strategy.init_args.param_dtype=null",
                "--trainer.accumulate_grad_batches=1",
            ),
        ),
        num_processes=2,
    ),
    Run(name="resume", commands=(_toy(max_steps=2), _toy("--ckpt_path=last", max_steps=4))),
)


def selected(only: str) -> tuple[Run, ...]:
    """The runs of these names, separated by commas, in the list's order; all for an empty text.

    Raises:
        ValueError: for a name that no run has.
    """
    names = {name.strip() for name in only.split(",") if name.strip()}
    unknown = sorted(names - {run.name for run in RUNS})
    if unknown:
        raise ValueError(f"--only {unknown[0]}: no such run; there are {', '.join(run.name for run in RUNS)}")
    return tuple(run for run in RUNS if not names or run.name in names)
