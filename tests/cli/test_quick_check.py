"""What is misspelt is refused from source text alone; what the parser would accept is let through."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse._parameter_resolvers import get_signature_parameters

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import all_configs, resolve_config_arguments
from sgsd_lightning.cli.lightning_cli import SelfDistillationCLI, _for_command, run
from sgsd_lightning.cli.parts import PARTS, classes_of
from sgsd_lightning.cli.quick_check import check_arguments, run_callbacks, top_level
from sgsd_lightning.cli.source.modules import Definition, find
from sgsd_lightning.cli.source.signatures import signature

ROOT = Path(__file__).resolve().parents[2]
MODEL, DATA = "--model.init_args", "--data.init_args"
OBJECTIVE = f"{MODEL}.objective"
QUICK = (
    (["--help"], 0),
    (["--version"], 0),
    (["fti"], 2),
    (["configs"], 0),
    (["help"], 0),
    (["help", "objective"], 0),
    (["help", "GatedPolarity"], 0),
    (["fit", "--help"], 0),
    (["compare", "--help"], 0),
    (["skills", "show", str(ROOT / "sgsd_lightning/toy/toy_bank.json")], 0),
    (["skills", "shwo"], 2),
    (["skills", "audit", "--help"], 0),
    (["fit", "--trainre.max_steps=1"], 2),
    (["fit", "--config", "sgsd_toi"], 2),
    (["fit", "--config", "sgsd_toy", f"{OBJECTIVE}=sgsd_lightning.objectives.GatedPolarty"], 2),
    (["plan", "--config", "sgsd_toy", "--trainer.max_stepz=1"], 2),
    (["fit"], 2),
    (["fit", "sgsd_toy"], 2),
    (["fit", "--config", "sgsd_toy", "-x", "3"], 2),
    (["fit", "--config", "sgsd_toy", "--optimizer.lr", "3"], 2),
    (["study", "toyy"], 2),
    (["report", "nofolder"], 2),
    (["compare", "a", "b"], 2),
)


def test_what_needs_no_model_imports_none(tmp_path: Path) -> None:
    """All in one process: the heavy packages are in none of them."""
    code = f"""
import sys
from sgsd_lightning.cli import main
for arguments, status in {QUICK!r}:
    try:
        found = main(arguments)
    except SystemExit as stop:
        found = stop.code or 0
    heavy = [name for name in ("torch", "lightning", "transformers", "scipy", "sklearn") if name in sys.modules]
    if found != status or heavy:
        sys.exit(f"{{arguments}}: {{found}}, {{heavy}}")
"""
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'kernels')!r}]\n"
    result = subprocess.run([sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def options_of_the_parser(command: str) -> set[str]:
    """Dotted names of what the real parser accepts."""
    cli = object.__new__(_for_command(command))
    found: set[str] = set()

    def collect(self: Any, parser: Any, args: Any) -> None:
        nested = self._subcommand_parsers[command]
        found.update(action.dest for action in nested._actions if not action.dest.endswith("help"))
        raise SystemExit

    kind = type(cli)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "parse_arguments", collect)
        with pytest.raises(SystemExit):
            run([command])
    return found - {"print_config"}


@pytest.mark.parametrize("command", ["fit", "predict", "export", "evaluate"])
def test_the_options_that_are_known_are_those_of_the_parser(command: str) -> None:
    assert command in SelfDistillationCLI.subcommands()
    known = top_level(command)
    assert not known.is_open
    groups = {"trainer": find("lightning.pytorch.Trainer"), **run_callbacks()}
    names = {name for name in known.arguments if name not in groups}
    for group, kind in groups.items():
        assert isinstance(kind, Definition)
        accepted = signature(kind)
        assert not accepted.is_open
        names |= {f"{group}.{name}" for name in accepted.arguments}
    assert names == {name for name in options_of_the_parser(command) if name not in groups}


def test_the_arguments_of_classes_are_those_that_the_parser_finds() -> None:
    """Of every class that help lists, ours, torch's and Lightning's."""
    paths = [path for part in PARTS.values() for path in classes_of(part)]
    assert len(paths) > 60
    for path in paths:
        module, _, name = path.rpartition(".")
        found = find(path)
        assert isinstance(found, Definition)
        actual = getattr(__import__(module, fromlist=[name]), name)
        known = signature(found)
        expected = {parameter.name for parameter in get_signature_parameters(actual, None)}
        assert known.is_open or set(known.arguments) == expected, path


def refusal(*arguments: str) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as told:
        check_arguments("fit", resolve_config_arguments(["--config", "sgsd_toy", *arguments]))
    return str(told.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--trainre.max_steps=1", "there is no option --trainre.max_steps; did you mean --trainer.max_steps?"),
        ("--modle.init_args.seed=1", "did you mean --model.init_args.seed?"),
        ("--ckpt_pth=last", "did you mean --ckpt_path?"),
        ("--colapse_guard.window=3", "did you mean --collapse_guard.window?"),
        ("--collapse_guard.windows=3", "did you mean --collapse_guard.window?"),
        ("--trainer.max_stepz=1", "did you mean --trainer.max_steps?"),
        ("--trainer.max_step=3", "there is no option --trainer.max_step; did you mean --trainer.max_steps?"),
        ("--optimizer.lr=1", "there is no option --optimizer"),
        ("--conf=sgsd_toy", "there is no option --conf; did you mean --config?"),
        ("--trainer.nothing_like_it=1", "no option --trainer.nothing_like_it; see sgsd help trainer"),
        (f"{MODEL}.objectve.init_args.polarity=imitate", f"did you mean {OBJECTIVE}.init_args.polarity?"),
        (f"{OBJECTIVE}.init_args.gate_temprature=1", f"did you mean {OBJECTIVE}.init_args.gate_temperature?"),
        (f"{OBJECTIVE}.gate_temprature=1", f"did you mean {OBJECTIVE}.gate_temperature?"),
        (f"{OBJECTIVE}.init_args.zzz=1", "there are gate_temperature, log_ratio_clip, stance_threshold"),
        (f"{MODEL}.scoring.train_eoss=true", f"did you mean {MODEL}.scoring.train_eos?"),
        (f"{MODEL}.rollouts.init_args.sampling.max_tokens=3", "sampling.max_new_tokens?"),
        (
            f'{MODEL}.policy.init_args.lora={{"rnak": 4}}',
            "there is no option --model.init_args.policy.init_args.lora.rnak",
        ),
        (
            f"{MODEL}.optimizer.init_args.wieght_decay=0",
            "did you mean --model.init_args.optimizer.init_args.weight_decay?",
        ),
        (f"{MODEL}.optimizer=AdmW", f"{MODEL}.optimizer: there is no class AdmW; did you mean AdamW?"),
        (f"{DATA}.batchsize=4", f"did you mean {DATA}.batch_size?"),
        (
            f"{OBJECTIVE}=sgsd_lightning.objectives.GatedPolarty",
            f"{OBJECTIVE}: sgsd_lightning.objectives has no GatedPolarty; did you mean "
            "sgsd_lightning.objectives.GatedPolarity?",
        ),
        (f"{OBJECTIVE}=sgsd_lightning.objectivs.GatedPolarity", "did you mean sgsd_lightning.objectives?"),
        (f"{OBJECTIVE}=GatedPolarty", f"{OBJECTIVE}: there is no class GatedPolarty; did you mean GatedPolarity?"),
        (f"{MODEL}.optimizer=torch.optim.AdmW", "torch.optim has no AdmW; did you mean torch.optim.AdamW?"),
        ("--trainer.callbacks+=lightning.pytorch.callbacks.ModelChekpoint", "callbacks.ModelCheckpoint?"),
        (f"{DATA}.train=sgsd_lightning.data.JsonlProblem", "did you mean sgsd_lightning.data.JsonlProblems?"),
        (f"{MODEL}.verifier=nowhere_at_all.Mine", "there is no module nowhere_at_all, in the current folder or"),
    ],
)
def test_a_misspelt_option_is_told_what_was_meant(argument: str, message: str) -> None:
    assert message in refusal(argument)
    name, _, value = argument.partition("=")
    assert message in refusal(name, value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trainr": {}}, "mine.yaml: there is no setting trainr; did you mean trainer?"),
        (
            {"trainer": {"max_step": 1}},
            "mine.yaml: there is no setting trainer.max_step; did you mean trainer.max_steps?",
        ),
        ({"model": {"init_agrs": {}}}, "there is no setting model.init_agrs; did you mean model.init_args?"),
        ({"model": {"init_args": {"objective": {"init_args": {"polrity": 1}}}}}, "objective.init_args.polarity?"),
        ({"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.Tymer"}]}}, "callbacks.Timer?"),
        (
            {"data": {"init_args": {"test": {"class_path": "sgsd_lightning.data.JsonProblems"}}}},
            "mine.yaml: data.init_args.test: sgsd_lightning.data has no JsonProblems; did you mean",
        ),
    ],
)
def test_a_misspelt_setting_of_a_file_is_told_with_the_file(
    content: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    assert message in refusal("--config", "mine.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sgsd fit needs a configuration: --config sgsd_toy, or a file; sgsd configs lists those shipped"),
        (["--trainer.max_steps=1"], "sgsd fit needs a configuration"),
        (["sgsd_toy"], "sgsd fit takes options alone; got 'sgsd_toy'; did you mean --config sgsd_toy?"),
        (["sgsd_toi"], "sgsd fit takes options alone; got 'sgsd_toi'; did you mean --config sgsd_toy?"),
        (
            ["mine.yaml", "--seed_everything=1"],
            "sgsd fit takes options alone; got 'mine.yaml'; did you mean --config mine.yaml?",
        ),
        (["--config", "sgsd_toy", "--trainer.max_steps", "3", "4"], "sgsd fit takes options alone; got '4'"),
        (["--config", "sgsd_toy", "-x", "3"], "there is no option -x; see sgsd fit --help"),
        (["--config", "sgsd_toy", "-x=3"], "there is no option -x; see sgsd fit --help"),
    ],
)
def test_a_command_line_of_another_form_is_told_what_is_right(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("{}")
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        check_arguments("fit", resolve_config_arguments(arguments))


@pytest.mark.parametrize("option", ["--trainer.max_step=3", "--optimizer.lr=1", "--ckpt=last"])
def test_the_parser_too_takes_no_beginning_of_an_option_for_it(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the quick check knows nothing of it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(["fit", *resolve_config_arguments(["--config", "sgsd_toy"]), option])
    assert stop.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_nor_do_the_parsers_of_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--max-step=3"])
    assert stop.value.code == 2
    assert "there is no option --max-step; did you mean --max-steps?" in capsys.readouterr().err


def test_a_misspelt_class_of_ones_own_is_found_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_parts_here.py").write_text("class MyVerifier:\n    def __init__(self, strict=True): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    place = f"{MODEL}.verifier"
    assert "did you mean own_parts_here.MyVerifier?" in refusal(f"{place}=own_parts_here.MyVerifer")
    assert "did you mean own_parts_here.MyVerifier?" in refusal(f"{place}=own_part_here.MyVerifier")
    own = f"{place}=own_parts_here.MyVerifier"
    assert f"did you mean {place}.init_args.strict?" in refusal(own, f"{place}.init_args.strct=1")


@pytest.mark.parametrize(
    "arguments",
    [
        [f"{OBJECTIVE}=PolicyGradient"],
        [f"{OBJECTIVE}=open_parts.Any", f"{OBJECTIVE}.init_args.whatever=1"],
        [f"{OBJECTIVE}=open_parts.Made", f"{OBJECTIVE}.init_args.whatever=1"],
        [f"{OBJECTIVE}=open_parts.Below", f"{OBJECTIVE}.init_args.anything=1"],
        [f"{OBJECTIVE}=open_parts.KnownAtRunTime"],
        [f"{MODEL}.evaluation.contexts=skills.json"],
        [f"{MODEL}.scoring.init_args.train_eos=true"],
        ["--trainer.callbacks+=lightning.pytorch.callbacks.Timer", "--trainer.callbacks.duration=00:01:00:00"],
        ["--trainer.logger=false", "--trainer.strategy=deepspeed_stage_2", "--trainer.devices=[0, 1]"],
        ["--print_config=skip_null"],
        ["--model.help=sgsd_lightning.SelfDistillation"],
        [f"{MODEL}.prompts.student_template_args.enable_thinking=true"],
        [f"{MODEL}.optimizer.init_args.betas=[0.9, 0.95]", f"{MODEL}.seed=1"],
        [f"{OBJECTIVE}.init_args.gate_temperature", "-1"],
    ],
)
def test_what_may_be_right_is_left_to_the_parser(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open_parts.py").write_text(
        "import decimal\n"
        "class Any:\n    def __init__(self, **settings): ...\n"
        "Made = type('Made', (), {})\n"
        "class Below(Made): pass\n"
        "def __getattr__(name): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check_arguments("fit", resolve_config_arguments(["--config", "sgsd_toy", *arguments]))


@pytest.mark.parametrize("name", sorted(all_configs()))
def test_every_shipped_configuration_passes(name: str) -> None:
    base = [] if "/" not in name else ["--config", "sgsd_paper"]
    check_arguments("fit", resolve_config_arguments([*base, "--config", name]))
