"""The pages of `sgsd help`."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sgsd_lightning.cli.parts import PARTS, Part, class_called, class_names, classes_of, part_called, part_names
from sgsd_lightning.cli.quick_check import GIVEN_BY_CODE, MODEL, command_method, missing_path, run_callbacks
from sgsd_lightning.cli.source.modules import Definition, Missing, find
from sgsd_lightning.cli.source.signatures import Argument, description, signature, summary
from sgsd_lightning.cli.suggest import suggestion

FIRST_TRAINER_OPTIONS = {
    "default_root_dir": "the run folder: checkpoints, tables, logs",
    "max_steps": "optimizer steps; -1 leaves it to max_epochs",
    "accelerator": "auto, cpu or gpu",
    "devices": "how many, or which",
    "strategy": "auto, ddp, or a class (sgsd help strategy)",
    "precision": "of weights and arithmetic: 32-true, bf16-mixed, bf16-true, …",
    "accumulate_grad_batches": "batches of each process in one optimizer step",
    "gradient_clip_val": "the largest norm of the gradient",
    "val_check_interval": "batches between two validations; a fraction is of an epoch",
}
COMMANDS = {
    "fit": "Train, and validate while training. The run folder is --trainer.default_root_dir.",
    "validate": "avg@k and pass@k on the validation problems.",
    "test": "avg@k and pass@k on the test problems.",
    "predict": "Sample completions of the test problems.",
}
"""Of Lightning's own commands; ours say it in their docstrings."""
FILLED_IN = ("params", "optimizer")
"""What an optimizer and a scheduler get when they are made."""
CHECKPOINT = "a checkpoint: a file, a folder of shards, or `last` or `best` of the run folder"
LIGHTNING_OPTIONS = {
    "ckpt_path": CHECKPOINT,
    "weights_only": "whether the checkpoint is read without running code of its own",
    "verbose": "whether the result is printed",
    "return_predictions": "whether predictions are kept in memory",
}


def help_page(words: Sequence[str]) -> str:
    """What `sgsd help WORDS` prints.

    Args:
        words: none for the list of parts; a part; a class by its name or import path; or a part and a class.

    Raises:
        ValueError: for a word that names nothing, with the nearest that does.
    """
    if not words:
        return _overview()
    if len(words) > 2:
        raise ValueError(f"sgsd help takes a part and a class of it; got {' '.join(words)}")
    part = part_called(words[0])
    if len(words) == 2:
        if part is None:
            raise ValueError(f"there is no part {words[0]}{suggestion(words[0], part_names())}")
        return _class_page(words[1], None if part == "callbacks" else PARTS[part])
    if part == "callbacks":
        return _callbacks_page()
    if part is None:
        return _class_page(words[0], None)
    only = [*classes_of(PARTS[part]).items()]
    return _definition_page(*only[0], PARTS[part]) if not PARTS[part].modules else _part_page(part, PARTS[part])


def command_page(command: str) -> str:
    """What `sgsd COMMAND --help` prints for a command that reads a configuration."""
    own, model = command_method(command.replace("-", "_")), find(MODEL)
    data, trainer = (find(PARTS[name].base) for name in ("data", "trainer"))
    assert isinstance(model, Definition)
    assert isinstance(data, Definition)
    assert isinstance(trainer, Definition)
    options = signature(own).arguments
    options = {name: option for name, option in options.items() if name not in GIVEN_BY_CODE}
    if command in COMMANDS:
        options = _explained(options, LIGHTNING_OPTIONS)
    every_trainer_option = signature(trainer).arguments
    trainer_options = _explained(
        {name: every_trainer_option[name] for name in FIRST_TRAINER_OPTIONS}, FIRST_TRAINER_OPTIONS
    )
    return _joined(
        f"usage: sgsd {command} --config NAME_OR_FILE [--config …] [--OPTION VALUE …]",
        *_filled(COMMANDS.get(command) or description(own), ""),
        "",
        *_section("this command", "--", options),
        "  --config NAME_OR_FILE    settings; `sgsd configs` lists those that come with the package. Others are laid",
        "                           over it in turn, then options: --config sgsd_toy --config method/grpo",
        "  --print_config           print every setting with its value, and stop",
        "  --seed_everything INT    what all randomness derives from",
        "",
        *_section("the model's parts", "--model.init_args.", signature(model).arguments),
        "",
        *_section("data", "--data.init_args.", signature(data).arguments),
        "",
        *_section("trainer", "--trainer.", trainer_options),
        f"  … and {len(every_trainer_option) - len(trainer_options)} more: sgsd help trainer",
        "",
        "what watches a run (each --NAME.OPTION; sgsd help callbacks):",
        *_filled(", ".join(run_callbacks()), "  "),
        "",
        "A part is a class and its arguments: --model.init_args.objective GatedPolarity",
        "  --model.init_args.objective.init_args.stance_threshold 0.1, or in YAML {class_path: …, init_args: {…}}.",
        "  A class of your own in the current folder is one too: --model.init_args.verifier my_project.MyVerifier",
        "sgsd help PART lists the classes of a part, sgsd help CLASS their arguments; parts:",
        *_filled(", ".join(part_names()), "  "),
    )


def _explained(arguments: Mapping[str, Argument], meanings: Mapping[str, str]) -> dict[str, Argument]:
    """With our words in the place of Lightning's."""
    return {
        name: replace(argument, meaning=meanings.get(name, argument.meaning)) for name, argument in arguments.items()
    }


def _overview() -> str:
    names = {name: part.says for name, part in PARTS.items()} | {"callbacks": "what watches a run, by name"}
    return _joined(
        "usage: sgsd help PART | sgsd help CLASS | sgsd help COMMAND",
        "",
        "The parts of a run; sgsd help PART lists the classes that come with the package:",
        *_table(names),
    )


def _part_page(name: str, part: Part) -> str:
    rows = {path: _summary_or_arguments(found) for path, found in classes_of(part).items()}
    first = next(iter(classes_of(part))).rpartition(".")[2]
    return _joined(
        f"{name}: {part.says}",
        f"set by {part.option}",
        "",
        *(line for path, says in rows.items() for line in [path, *_filled(says, "    ")]),
        "",
        f"sgsd help {first} shows its arguments.",
        f"A class of your own is set by its import path; it derives from {part.base}.",
    )


def _callbacks_page() -> str:
    return _joined(
        "callbacks: what watches a run",
        "each has a name of its own, --NAME.OPTION; more by --trainer.callbacks+=CLASS",
        "",
        *_table({name: summary(found) for name, found in run_callbacks().items()}),
        "",
        "sgsd help NAME shows the options of one.",
    )


def _class_page(name: str, part: Part | None) -> str:
    """Of a class that comes with the package, a callback by its name, or any by its import path.

    Raises:
        ValueError: if there is none.
    """
    callbacks = run_callbacks()
    if part is None and name in callbacks:
        return _definition_page(callbacks[name].path, callbacks[name], None, f"--{name}.")
    shipped = class_called(name)
    if shipped is not None and part in (None, shipped[0]):
        return _definition_page(shipped[1], shipped[2], shipped[0])
    found = find(name) if "." in name else None
    if isinstance(found, Definition):
        return _definition_page(name, found, part)
    if isinstance(found, Missing):
        raise ValueError(missing_path(name, found))
    if part is not None:
        raise ValueError(f"there is no {name}{suggestion(name, class_names([part]))}")
    known = [*part_names(), *callbacks, *class_names(PARTS.values())]
    told = suggestion(name, known, otherwise="; sgsd help lists the parts")
    raise ValueError(f"there is no part or class {name}{told}")


def _definition_page(path: str, found: Definition, part: Part | None, prefix: str = "") -> str:
    arguments = dict(signature(found).arguments)
    if part is not None:
        for name in FILLED_IN:
            arguments.pop(name, None)
        is_nested = bool(part.modules) or part.option == "--data"
        prefix = f"{part.option}.init_args." if is_nested else f"{part.option}."
    about = _plain(description(found))
    return _joined(
        path,
        *([f"set by {part.option}"] if part is not None else []),
        *(["", *about.splitlines()] if about else []),
        "",
        *(_full_arguments(arguments) if arguments else ["no arguments"]),
        *(["", f"on the command line: {prefix}{next(iter(arguments))} VALUE"] if prefix and arguments else []),
    )


def _summary_or_arguments(found: Definition) -> str:
    return summary(found) or ", ".join(signature(found).arguments)


def _section(title: str, prefix: str, arguments: Mapping[str, Argument]) -> Iterator[str]:
    """A heading, and of every argument the name, the beginning of its meaning and its default."""
    yield f"{title} ({prefix}…):" if prefix != "--" else f"{title}:"
    for name, argument in arguments.items():
        known = f" ({argument.default_text})" if argument.default_text not in ("required", "null") else ""
        shown = f"{prefix}{name}" if prefix == "--" else name
        yield from _row(shown, f"{_first_sentence(_plain(argument.meaning))}{known}", 24)


def _full_arguments(arguments: Mapping[str, Argument]) -> Iterator[str]:
    yield "arguments:"
    for name, argument in arguments.items():
        kind = f": {argument.kind_text}" if argument.annotation is not None else ""
        yield f"  {name}{kind}{' (required)' if argument.default is None else f' = {argument.default_text}'}"
        yield from _filled(_plain(argument.meaning), "      ")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;]) ", text, maxsplit=1)[0].rstrip(".;:")


def _plain(text: str) -> str:
    """Without the marks and formulas of docstrings."""
    text = re.sub(r"^\.\. math::.*?(?=^\S|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "`")


def _table(rows: dict[str, str]) -> Iterator[str]:
    width = max(map(len, rows)) + 2
    for name, says in rows.items():
        yield from _row(name, says, width)


def _row(name: str, says: str, width: int) -> Iterator[str]:
    first, *others = _filled(says, "", _width() - width - 2) or [""]
    yield f"  {name:<{width}} {first}".rstrip()
    yield from (f"  {'':<{width}} {line}" for line in others)


def _filled(text: str, indent: str, width: int | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(inspect.cleandoc(text).split()),
        width or _width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _width() -> int:
    return max(60, min(100, shutil.get_terminal_size((100, 24)).columns))


def _joined(*lines: str) -> str:
    return "\n".join(lines) + "\n"
