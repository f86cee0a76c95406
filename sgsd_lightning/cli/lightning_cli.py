"""`sgsd fit|validate|test|predict|audit-prompts|export`: one YAML file serves all of them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from sgsd_lightning.audit import audit
from sgsd_lightning.callbacks import (
    AlignmentAudit,
    RolloutTable,
    RunCheckpoint,
    RunStatistics,
    default_loggers,
)
from sgsd_lightning.cli.errors import essential_lines
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.policy import export_model

SEED = 42


class ShortErrorParser(LightningArgumentParser):
    """Says what is wrong in a few lines, without the list of every flag."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        sys.stderr.write(f"sgsd: error: {essential_lines(message)}\n")
        raise SystemExit(2)


class SelfDistillationTrainer(Trainer):
    """Lightning's Trainer with the two commands that read a run's configuration without training."""

    def audit_prompts(self, model: SelfDistillation, datamodule: ProblemDataModule) -> None:
        """Print what student, teachers and evaluation read, with warnings, for the first training problem."""
        _load(self, model, datamodule)
        print(audit(model, datamodule.problems["train"][0]))

    def export(
        self,
        model: SelfDistillation,
        datamodule: ProblemDataModule,
        folder: str,
        ckpt_path: str | None = None,
        adapter: Literal["merged", "adapter"] = "merged",
    ) -> None:
        """Write the policy as a Hugging Face folder that `AutoModelForCausalLM` loads.

        Args:
            model: the module.
            datamodule: the data.
            folder: where to write.
            ckpt_path: the checkpoint to export; None exports the policy as it was before training.
            adapter: LoRA merged into the weights, or the adapter alone.
        """
        model.tokenizer = model.policy.load_tokenizer()
        model.configure_model()
        if ckpt_path is not None:
            checkpoint = _load_checkpoint(Path(ckpt_path))
            model.on_load_checkpoint(checkpoint)
            model.load_state_dict(checkpoint["state_dict"])
        export_model(model.model, model.tokenizer, Path(folder), adapter=adapter)
        print(f"exported to {folder}")


def _load(trainer: Trainer, model: SelfDistillation, datamodule: ProblemDataModule) -> None:
    """What `fit` does before its first step, without the strategy."""
    model.trainer = trainer
    datamodule.trainer = trainer
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    datamodule.setup("fit")
    model.setup("fit")
    model.configure_model()


def _load_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--ckpt_path {path}: no such checkpoint")
    return torch.load(path, map_location="cpu", weights_only=True)


class SelfDistillationCLI(LightningCLI):
    """LightningCLI whose runs live in one folder each, ``trainer.default_root_dir``."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {
            **LightningCLI.subcommands(),
            "audit_prompts": {"model", "datamodule"},
            "export": {"model", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(RolloutTable, "rollout_table")
        parser.add_lightning_class_args(RunStatistics, "run_statistics")
        parser.add_lightning_class_args(AlignmentAudit, "alignment_audit")
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Lightning's, without its warning that a program called from Python has a command line of its own."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Lightning merges a checkpoint's hyper-parameters over the command line here; the command line is to win."""

    def before_instantiate_classes(self) -> None:
        """Settle the run folder, and find out now whether it can be written."""
        config = self.config[self.subcommand]
        run_folder = Path(config.trainer.default_root_dir or ".").resolve()
        config.trainer.default_root_dir = str(run_folder)
        config.checkpoint.dirpath = config.checkpoint.dirpath or str(run_folder / "checkpoints")
        _require_writable(run_folder)
        last = Path(config.checkpoint.dirpath) / "last.ckpt"
        if config.get("ckpt_path") == "last":
            config.ckpt_path = str(_existing(last))
        elif (
            self.subcommand == "fit"
            and not config.get("ckpt_path")
            and last.exists()
            and not config.trainer.fast_dev_run
        ):
            raise FileExistsError(
                f"{run_folder} already holds a run ({last}). Resume it with --ckpt_path last, remove it, or choose "
                "another folder with --trainer.default_root_dir"
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer_config = self._get(self.config_init, "trainer")
        if trainer_config.get("logger") in (None, True):
            kwargs["logger"] = default_loggers(Path(trainer_config["default_root_dir"]))
        return super().instantiate_trainer(**kwargs)


def run(arguments: list[str]) -> SelfDistillationCLI:
    """Run one command line, such as ``["fit", "--config", "configs/sgsd_toy.yaml"]``."""
    return SelfDistillationCLI(
        SelfDistillation,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=SEED,
        save_config_kwargs={"overwrite": True},
        parser_class=ShortErrorParser,
        trainer_class=SelfDistillationTrainer,
        trainer_defaults={"use_distributed_sampler": False, "log_every_n_steps": 1},
        args=arguments,
    )


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return
    except OSError as error:
        raise PermissionError(
            f"trainer.default_root_dir {folder} cannot be written ({error.strerror}); choose another run folder"
        ) from error


def _existing(checkpoint: Path) -> Path:
    if not checkpoint.is_file():
        raise FileNotFoundError(f"--ckpt_path last: there is no {checkpoint}; start the run without --ckpt_path first")
    return checkpoint
