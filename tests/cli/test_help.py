"""`sgsd help` and `COMMAND --help`: complete where objects are asked, and short."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from sgsd_lightning import __version__
from sgsd_lightning.callbacks.defaults import RUN_CALLBACKS
from sgsd_lightning.cli import main
from sgsd_lightning.cli.parts import PARTS, part_called
from sgsd_lightning.cli.usage import OTHER_COMMANDS, RUN_COMMANDS, USAGE
from sgsd_lightning.module import SelfDistillation
from sgsd_lightning.objectives import GatedPolarity

OURS = {name: part for name, part in PARTS.items() if part.base.startswith("sgsd_lightning") and part.modules}


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", RUN_COMMANDS)
def test_the_help_of_a_command_fits_and_begins_with_our_own_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, command, "--help")
    lines = text.splitlines()
    assert 30 < len(lines) <= 100
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith(f"usage: sgsd {command} ")
    for name in inspect.signature(SelfDistillation.__init__).parameters:
        assert name == "self" or any(line.startswith(f"  {name} ") for line in lines), name
    assert text.index("the model's parts") < text.index("data (") < text.index("trainer (")
    assert "sgsd help trainer" in text
    assert "sgsd help PART" in text
    assert all(name in text for name in RUN_CALLBACKS)
    assert said(capsys, "help", command) == text


@pytest.mark.parametrize("name", OURS)
def test_a_part_lists_every_class_that_may_serve(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    part = OURS[name]
    module, _, base = part.base.rpartition(".")
    kind = getattr(importlib.import_module(module), base)
    expected = {
        f"{module}.{name}"
        for module in part.modules
        for name in importlib.import_module(module).__all__
        if inspect.isclass(found := getattr(importlib.import_module(module), name))
        and issubclass(found, kind)
        and found is not kind
        and not any(getattr(method, "__isabstractmethod__", False) for method in vars(found).values())
    }
    lines = said(capsys, "help", name).splitlines()
    assert expected
    assert expected <= {line for line in lines if not line.startswith(" ")}
    places = [place for place, line in enumerate(lines) if line in expected]
    assert all(lines[place + 1].startswith("    ") for place in places)


def test_a_class_says_its_arguments_with_defaults_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "help", "objective", "GatedPolarity")
    assert text == said(capsys, "help", "GatedPolarity")
    for name, parameter in inspect.signature(GatedPolarity).parameters.items():
        assert f"  {name}: " in text
        assert f" = {parameter.default!r}\n" in text
    assert "  polarity: 'validated' | 'imitate' = 'validated'\n" in text
    assert "tau > 0, in nats squared" in text
    assert "--model.init_args.objective.init_args." in text


def test_defaults_that_stand_elsewhere_are_shown_as_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert "  window: int = 10\n" in said(capsys, "help", "collapse_guard")
    assert "  train_eos: bool = true\n" in said(capsys, "help", "scoring")
    assert "  sampling: SamplingSettings = SamplingSettings()\n" in said(capsys, "help", "evaluation")
    optimizer = said(capsys, "help", "AdamW")
    assert "  weight_decay: float = 0.01\n" in optimizer
    assert "params" not in optimizer
    assert "math::" not in optimizer


def test_parts_of_other_packages_and_ones_own_have_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "  accumulate_grad_batches: int = 1\n" in said(capsys, "help", "trainer")
    assert "torch.optim.lr_scheduler.CosineAnnealingLR\n" in said(capsys, "help", "scheduler")
    assert "every_n_train_steps" in said(capsys, "help", "checkpoint")
    assert "  bank_maintenance " in said(capsys, "help", "callbacks")
    (tmp_path / "own_help_here.py").write_text(
        'class Mine:\n    """My part."""\n\n    def __init__(self, size: int = 3): ...\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = said(capsys, "help", "own_help_here.Mine")
    assert "My part." in text
    assert "  size: int = 3\n" in text


def test_parts_go_by_plurals_and_other_words() -> None:
    assert part_called("objectives") == part_called("Objective") == "objective"
    assert part_called("lr_scheduler") == "scheduler"
    assert part_called("teacher-weights") == "teacher_weights"
    assert part_called("callback") == "callbacks"
    assert part_called("nothing") is None


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["objectve"], "objective"),
        (["GatedPolarty"], "GatedPolarity"),
        (["AdmW"], "AdamW"),
        (["colapse_guard"], "collapse_guard"),
        (["objective", "GatedPolarty"], "GatedPolarity"),
        (["verifyer", "MathAnswer"], "verifier"),
        (["sgsd_lightning.data.JsonProblems"], "sgsd_lightning.data.JsonlProblems"),
    ],
)
def test_a_misspelt_word_is_told_what_was_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "help", *words).endswith(f"did you mean {meant}?")


def test_version_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == f"sgsd {__version__}\n"
    assert refused(capsys, "fti") == "sgsd: error: there is no command fti; did you mean sgsd fit?"
    assert refused(capsys, "audit-promts").endswith("did you mean sgsd audit-prompts?")
    assert refused(capsys, "zzzz").endswith("see sgsd --help")
    assert refused(capsys, "skills", "shwo").endswith("did you mean sgsd skills show?")
    assert refused(capsys, "configs", "x") == "sgsd: error: sgsd configs takes no argument; got x"
    for name in (*RUN_COMMANDS, *OTHER_COMMANDS):
        assert f"\n  {name} " in USAGE
