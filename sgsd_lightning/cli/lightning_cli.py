"""`sgsd fit|validate|test|predict|audit-prompts|export`: one YAML file serves all of them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn

from lightning.fabric.utilities.seed import max_seed_value, min_seed_value
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, Namespace

from sgsd_lightning.callbacks import ResumeGuard, RunCheckpoint
from sgsd_lightning.callbacks.alignment_audit import audit
from sgsd_lightning.callbacks.defaults import RUN_CALLBACKS, TRAINER_DEFAULTS, with_progress
from sgsd_lightning.checkpoints.choice import BEST_FILENAME, LAST_FILENAME, checkpoint_of_new_fit, chosen_checkpoint
from sgsd_lightning.checkpoints.identity import settings_identity
from sgsd_lightning.cli.errors import essential_lines
from sgsd_lightning.cli.null_values import keep_nulls
from sgsd_lightning.cli.output import say
from sgsd_lightning.cli.read_checkpoint import Source, read_source, tell_source
from sgsd_lightning.cli.run_folder import with_run_folder
from sgsd_lightning.cli.saved_config import SavedConfig
from sgsd_lightning.data import ProblemDataModule
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.texts.shown import printable
from sgsd_lightning.training.control_tokens import describe_control_tokens, list_texts
from sgsd_lightning.training.loggers import default_loggers
from sgsd_lightning.training.trainer_settings import told_in_one_sentence
from sgsd_lightning.types.arguments import require

SEED = 42
READERS = ("validate", "test", "predict", "evaluate", "export", "collect_memories")
"""Commands that read a checkpoint and leave it as it is."""


class ShortErrorParser(LightningArgumentParser):
    """Prints an error in a few lines, without the list of every flag."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        sys.stderr.write(f"sgsd: error: {printable(essential_lines(message))}\n")
        raise SystemExit(2)

    def dump(self, *arguments: Any, **settings: Any) -> str:
        """jsonargparse's, without checking again what parsing has checked, which takes seven times as long."""
        if "skip_none" in settings:  # Lightning's word for it, of which jsonargparse warns
            settings["skip_unset"] = settings.pop("skip_none")
        return super().dump(*arguments, **{"skip_validation": True, **settings})


class SelfDistillationTrainer(Trainer):
    """Lightning's Trainer with the commands that read a run's configuration without training."""

    evaluation_settings: Mapping[str, str]
    """What samples of `evaluate` depend on, set by the command line."""
    source: Source | None = None
    """What `evaluate` and `export` read, set by the command line."""

    def audit_prompts(self, model: SelfDistillation, datamodule: ProblemDataModule) -> None:
        """Print what student, teachers and evaluation read, with warnings, for the first training problem."""
        _load(self, model, datamodule)
        problems, learner = datamodule.problems["train"], model.learner
        report = audit(model, problems[0])
        texts = {"train problems": list_texts(problems), "items of the bank": learner.contexts.own_texts()}
        found = [describe_control_tokens(what, held, learner.tokenizer) for what, held in texts.items()]
        report.warnings += [warning for warning in found if warning is not None]
        say(str(report))

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
            folder: where to write; one that holds another model is refused.
            ckpt_path: the checkpoint to export, a file or a folder of shards; None exports the untrained policy.
            adapter: LoRA merged into the weights, or the adapter alone.
        """
        from sgsd_lightning.cli.export import export

        export(model, Path(folder), ckpt_path, adapter, self.source)

    def evaluate(
        self,
        model: SelfDistillation,
        datamodule: ProblemDataModule,
        problems: str | None = None,
        samples: int | None = None,
        out: str | None = None,
        ckpt_path: str | None = None,
        shard: str = "0/1",
    ) -> None:
        """Sample many completions of each problem, and summarise them: avg@k with an interval, pass@k and more.

        Every sample is written as it is made; called again, it resumes where it stopped.

        Args:
            model: the module; evaluation.contexts says whether prompts are plain or show skills.
            datamodule: the data.
            problems: names of problem sets (aime24) and files, separated by commas; null takes the test problems of
                the configuration.
            samples: of each problem; null takes evaluation.group_size.
            out: the folder of samples and results; null takes `evaluation` in the run folder.
            ckpt_path: a checkpoint of the policy; null takes it untrained, as a Hugging Face folder is.
            shard: i/n evaluates every n-th problem from the i-th on, so that devices share an evaluation.
        """
        from sgsd_lightning.cli.evaluate import evaluate

        folder = Path(out) if out else Path(self.default_root_dir) / "evaluation"
        settings, source = self.evaluation_settings, self.source
        evaluate(self, model, datamodule, settings, source, folder, problems, samples, ckpt_path, shard)

    def collect_memories(
        self,
        model: SelfDistillation,
        datamodule: ProblemDataModule,
        out: str,
        samples: int = 1,
        limit: int | None = None,
        ckpt_path: str | None = None,
        evaluation: list[str] | None = None,
        dry_run: bool = False,
    ) -> None:
        """Sample the policy on training problems, judge, and write memories for `sgsd skills extract`.

        Run again, it resumes where it stopped. Problems of validation and test, and those of the evaluation files, are
        left out.

        Args:
            model: the module; its contexts are not needed yet.
            datamodule: the data.
            out: the memory file (JSON Lines).
            samples: trajectories of each problem.
            limit: take only the first so many problems; null takes all.
            ckpt_path: a checkpoint of the policy; null takes it untrained.
            evaluation: files of more evaluation problems (JSON Lines).
            dry_run: say what would be done.
        """
        from sgsd_lightning.cli.skills.collect import collect

        collect(self, model, datamodule, Path(out), samples, limit, ckpt_path, evaluation or [], dry_run)


def _load(trainer: Trainer, model: SelfDistillation, datamodule: ProblemDataModule) -> None:
    """What `fit` does before its first step, without the strategy."""
    model.trainer = trainer
    datamodule.trainer = trainer
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    datamodule.setup("fit")
    model.setup("fit")
    model.configure_model()


class SelfDistillationCLI(LightningCLI):
    """LightningCLI whose runs live in one folder each, ``trainer.default_root_dir``."""

    source: Source | None = None
    """The checkpoint that a command reads without training on, and under which configuration."""
    prints_results = True

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {
            **LightningCLI.subcommands(),
            "audit_prompts": {"model", "datamodule"},
            "export": {"model", "datamodule"},
            "evaluate": {"model", "datamodule"},
            "collect_memories": {"model", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, callback in RUN_CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("model.init_args.updates_per_batch", "data.init_args.updates_per_batch")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Lightning's, without its warning that a program called from Python has a command line of its own."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)
        seed = self.config[self.config.subcommand].get("seed_everything")
        is_seed = isinstance(seed, bool) or seed is None or min_seed_value <= seed <= max_seed_value
        require(is_seed, "seed_everything", f"be in [{min_seed_value}, {max_seed_value}]", seed)

    def _parse_ckpt_path(self) -> None:
        """Lightning merges a checkpoint's hyper-parameters over the command line here; the command line is to win."""

    def before_instantiate_classes(self) -> None:
        """Settle the run folder, and find out now whether it can be written."""
        config = self.config[self.subcommand]
        run_folder = Path(config.trainer.default_root_dir or ".").resolve()
        config.trainer.default_root_dir = str(run_folder)
        config.checkpoint.dirpath = config.checkpoint.dirpath or str(run_folder / "checkpoints")
        config.best_checkpoint.dirpath = config.best_checkpoint.dirpath or config.checkpoint.dirpath
        _require_writable(run_folder)
        last = Path(config.checkpoint.dirpath) / LAST_FILENAME
        if config.get("ckpt_path"):
            best = Path(config.best_checkpoint.dirpath) / BEST_FILENAME
            config.ckpt_path = chosen_checkpoint(config.ckpt_path, last, best)
        elif self.subcommand == "fit" and not config.trainer.fast_dev_run:
            config.ckpt_path = checkpoint_of_new_fit(run_folder, last)
        if "verbose" in config:  # the table of an evaluation is ours, not Lightning's
            self.prints_results, config.verbose = config.verbose, False

    def after_instantiate_classes(self) -> None:
        """Say which checkpoint is read, before the model is loaded."""
        if self.subcommand not in READERS:
            return
        config = self.config[self.subcommand]
        self.source = read_source(config.ckpt_path, _files(config), settings_identity(self.config_dump))
        if self.prints_results:
            tell_source(self.source)
        assert isinstance(self.trainer, SelfDistillationTrainer)
        self.trainer.source = self.source

    def before_fit(self) -> None:
        """Give the guard this run's settings, and the checkpoint that it resumes."""
        origin = self.config[self.subcommand].get("ckpt_path")
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ResumeGuard):
                callback.settings = settings_identity(self.config_dump)
                callback.origin = origin
            elif isinstance(callback, RunCheckpoint):
                callback.origin = origin

    def before_evaluate(self) -> None:
        """Give the trainer the settings that samples depend on."""
        from sgsd_lightning.cli.evaluate import evaluation_settings

        assert isinstance(self.trainer, SelfDistillationTrainer)
        self.trainer.evaluation_settings = evaluation_settings(self.config_dump)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """With our loggers, which only `fit` writes to, and our progress line."""
        trainer_config = self._get(self.config_init, "trainer")
        if trainer_config.get("logger") in (None, True):
            is_fit = self.subcommand == "fit"
            kwargs["logger"] = default_loggers(Path(trainer_config["default_root_dir"])) if is_fit else False
        own = trainer_config.get("callbacks") or []
        kwargs["callbacks"] = with_progress(
            own if isinstance(own, list) else [own], trainer_config.get("enable_progress_bar")
        )
        with told_in_one_sentence(trainer_config):
            return super().instantiate_trainer(**kwargs)


@cache
def _for_command(command: str) -> type[SelfDistillationCLI]:
    """The command line that knows the given command alone, and builds its parser once per process.

    Adding the arguments of a command takes tenths of a second, and nothing of a command line stays in them.
    """
    known = SelfDistillationCLI.subcommands()
    chosen = {command: known[command]} if command in known else known
    built: dict[str, Any] = {}

    class OneCommand(SelfDistillationCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return chosen

        def setup_parser(self, *arguments: Any) -> None:
            if not built:
                before = set(vars(self))
                super().setup_parser(*arguments)
                built.update({name: value for name, value in vars(self).items() if name not in before})
            vars(self).update(built)

    return OneCommand


def run(arguments: list[str]) -> SelfDistillationCLI:
    """Run one command line, such as ``["fit", "--config", "configs/sgsd_toy.yaml"]``."""
    keep_nulls()
    return _for_command(arguments[0] if arguments else "")(
        SelfDistillation,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=SEED,
        save_config_callback=SavedConfig,
        parser_class=ShortErrorParser,
        trainer_class=SelfDistillationTrainer,
        trainer_defaults=dict(TRAINER_DEFAULTS),
        args=[*arguments[:1], *with_run_folder(arguments[1:])],
    )


def _files(config: Namespace) -> list[str]:
    """The files of a configuration, in order."""
    return [str(file) for file in config.get("config") or []]


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return
    except OSError as error:
        raise PermissionError(
            f"trainer.default_root_dir {folder} cannot be written ({error.strerror}); choose another run folder"
        ) from error
