"""Runs of `sgsd` over small files, in processes that are forked from one which has done the imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml

from tests.support.forked import forkserver

REPOSITORY = Path(__file__).resolve().parents[2]


def write_run(folder: Path, **trainer: Any) -> Path:
    """A configuration over files in ``folder``: tiny random model, ten problems, a bank of three pairs, EMA teacher."""
    problems = [{"id": f"p{i}", "problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(10)]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)) + "\n")
    skill = {"title": "T", "principle": "P", "when_to_apply": "W"}
    mistake = {"description": "D", "why_it_happens": "Y", "how_to_avoid": "H"}
    bank = {
        "general_skills": [{"skill_id": f"gen_{i}", **skill} for i in range(3)],
        "common_mistakes": [{"mistake_id": f"err_{i}", **mistake} for i in range(3)],
    }
    (folder / "bank.json").write_text(json.dumps(bank))
    source = {"class_path": "sgsd_lightning.data.JsonlProblems", "init_args": {"path": "problems.jsonl"}}
    policy = {"hidden_size": 32, "num_layers": 1, "intermediate_size": 64}
    parts = {
        "policy": {"class_path": "sgsd_lightning.policy.RandomPolicy", "init_args": policy},
        "contexts": {
            "class_path": "sgsd_lightning.contexts.SkillPairs",
            "init_args": {"bank": "bank.json", "num_contexts": 2},
        },
        "objective": {
            "class_path": "sgsd_lightning.objectives.GatedPolarity",
            "init_args": {"stance_threshold": 0.0},
        },
        "verifier": {
            "class_path": "sgsd_lightning.verifiers.MathAnswer",
            "init_args": {"truncated_rollouts": "failure"},
        },
        "teacher_weights": {"class_path": "sgsd_lightning.policy.EmaTeacher", "init_args": {"decay": 0.5}},
        "rollouts": {
            "class_path": "sgsd_lightning.rollouts.SingleTurn",
            "init_args": {"sampling": {"max_new_tokens": 6}},
        },
        "evaluation": {"sampling": {"max_new_tokens": 6}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"total_iters": 4}},
    }
    config = {
        "seed_everything": 1,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 5,
            "accumulate_grad_batches": 2,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": "run",
            "callbacks": [{"class_path": "tests.support.accidents.Accident"}],
            **trainer,
        },
        "checkpoint": {"every_n_train_steps": 2},
        "rollout_table": {"every_n_steps": 1},
        "model": {"class_path": "sgsd_lightning.module.SelfDistillation", "init_args": parts},
        "data": {
            "class_path": "sgsd_lightning.data.ProblemDataModule",
            "init_args": {"batch_size": 2, "train": source, "drop_last": False},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass
class Sgsd:
    """`sgsd` at work: one process, or one for each of several ranks."""

    processes: list[BaseProcess]
    outputs: list[Path]

    def wait(self, timeout: float = 60.0) -> list[int]:
        """Exit statuses, by rank; a process that is not through in time fails the test."""
        for process in self.processes:
            process.join(timeout)
        late = [process.pid for process in self.processes if process.is_alive()]
        for process in self.processes:
            process.kill()
        assert not late, self.said()
        return [process.exitcode or 0 for process in self.processes]

    def said(self, rank: int = 0) -> str:
        """Everything that a process wrote."""
        return self.outputs[rank].read_text()


def start(folder: Path, *arguments: str, num_processes: int = 1, accident: str = "", **variables: str) -> Sgsd:
    """Start `sgsd fit --config run.yaml ...` in ``folder``."""
    command = ["fit", "--config", "run.yaml", *arguments]
    if num_processes > 1:
        command += [f"--trainer.devices={num_processes}", "--trainer.strategy=ddp"]
        command += [f"--data.init_args.batch_size={2 // num_processes}"]
    return start_command(folder, command, num_processes, **variables, SGSD_TEST_ACCIDENT=accident)


def start_command(folder: Path, command: list[str], num_processes: int = 1, **variables: str) -> Sgsd:
    """Start `sgsd` with any command in ``folder``."""
    context = forkserver()
    outputs = [folder / f"output-{rank}.txt" for rank in range(num_processes)]
    processes: list[BaseProcess] = [
        context.Process(target=_enter, args=(folder, command, {**rank, **variables}, output))
        for rank, output in zip(_ranks(num_processes), outputs, strict=True)
    ]
    for process in processes:
        process.start()
    return Sgsd(processes, outputs)


def _ranks(num_processes: int) -> list[dict[str, str]]:
    """Variables under which Lightning takes processes for ones that were started from outside."""
    if num_processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    return [{**common, "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def _enter(folder: Path, command: list[str], variables: dict[str, str], output: Path) -> None:
    import torch

    from sgsd_lightning.cli import main

    # a shell's background job, such as a CI's, begins with SIGINT ignored, and its children with it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.update(variables, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", PYTHONPATH=str(REPOSITORY))
    torch.set_num_threads(1)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["sgsd", *command]
    sys.exit(main())
