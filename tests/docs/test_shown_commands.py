"""What README and docs show works: commands parse, code runs, links lead somewhere."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import pytest
import yaml

from sgsd_lightning.cli import main
from sgsd_lightning.cli.configs import resolve_config_arguments
from sgsd_lightning.cli.renamed import RENAMED_CLASSES, RENAMED_SETTINGS
from sgsd_lightning.cli.run_folder import with_run_folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples/my_method.py", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = re.compile(r"# needs an? (GPU|hub|endpoint)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_FOREIGN = ("_exit", "_replace", "_score_is_bound_for")
"""Python's own, and what this package sets on a model."""
INLINE = re.compile(r"`(sgsd [^`\n]*)`")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines, with continued ones joined and comments left out."""
        joined = self.text.replace("\\\n", " ")
        lines = (shlex.join(shlex.split(line, comments=True)) for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: Path) -> list[Block]:
    return [Block(page.name, match[1], match[2]) for match in BLOCK.finditer(page.read_text())]


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL_BLOCKS if block.language == "bash"]


def commands_of(page: Path) -> list[str]:
    """Every `sgsd` command of a page's blocks and sentences, once."""
    shown = [command for block in blocks(page) if block.language == "bash" for command in block.commands]
    shown += [command for command in INLINE.findall(page.read_text()) if "--" in command]
    return sorted({command for command in shown if command.startswith("sgsd ") and "..." not in command})


def sgsd_commands() -> list[str]:
    """Those of all pages, once."""
    return sorted({command for page in PAGES for command in commands_of(page)})


class Parsed(Exception):
    """A command line was read to its end."""


@pytest.fixture
def only_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop every command once its arguments are read."""
    depth = 0

    def stop_after(cls: type[Any]) -> None:
        original = cls.parse_args

        def parse_args(self: Any, *arguments: Any, **settings: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                values = original(self, *arguments, **settings)
            finally:
                depth -= 1
            if depth == 0:
                raise Parsed
            return values

        monkeypatch.setattr(cls, "parse_args", parse_args)

    stop_after(jsonargparse.ArgumentParser)
    stop_after(argparse.ArgumentParser)


@pytest.mark.parametrize("command", sgsd_commands())
def test_a_command_parses(
    command: str, only_parsed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    try:
        status = main(shlex.split(command, comments=True)[1:])
    except Parsed:
        return
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 0, capsys.readouterr().err


def test_runs_that_are_shown_do_not_meet_in_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages can be followed one after the other, in any order; what resumes a run is not one of its own."""
    monkeypatch.chdir(ROOT)
    runs: dict[str, str] = {}
    for page, command in [(shown.name, command) for shown in PAGES for command in commands_of(shown)]:
        words = shlex.split(command)
        if words[1] != "fit" or {"--ckpt_path", "--print_config", "--help"} & set(words):
            continue
        joined = " ".join(with_run_folder(resolve_config_arguments(words[2:])))
        folder = re.findall(r"--trainer\.default_root_dir[= ](\S+)", joined)[-1]
        assert folder not in runs, f"{page}: {command} and {runs[folder]} both run in {folder}"
        runs[folder] = f"{page}: {command}"
    assert {"runs/sgsd_toy", "runs/sgsd_toy-grpo", "runs/sgsd_starter", "runs/mine"} <= runs.keys()


def test_there_are_commands_to_check() -> None:
    commands = sgsd_commands()
    assert len(commands) > 30
    assert {"sgsd configs", "sgsd fit --config sgsd_toy"} <= set(commands)


def test_what_cannot_run_on_a_laptop_is_marked() -> None:
    unmarked = [
        (block.page, command)
        for block in SHELL
        for command in block.commands
        if re.search(r"qwen3|sgsd_paper|EndpointModel|aime|hmmt", command) and "sgsd plan" not in command
        if not NEEDS.search(block.text)
    ]
    assert not unmarked


def test_make_has_the_targets_that_are_shown() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert shown
    assert shown <= targets


def test_the_examples_of_extending_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order and in one namespace, as a reader would follow them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "extending"}
    for number, block in enumerate(blocks(ROOT / "docs/extending.md"), start=1):
        if block.language == "python":
            exec(compile(block.text, f"docs/extending.md, block {number}", "exec"), names)
    assert len(names["rewards"].seen) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_blocks_are_well_formed(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, block.page, "exec")
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)
        else:
            assert block.language in ("", "bash")
            assert block.language or not re.search(r"^(sgsd|pip|make) ", block.text, re.MULTILINE), block.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}, (
                target
            )


def test_names_of_earlier_editions_are_in_the_table_alone() -> None:
    table = (ROOT / "docs/upgrading.md").read_text()
    for old, new in {**RENAMED_SETTINGS, **RENAMED_CLASSES}.items():
        assert f"`{old}`" in table
        assert f"`{new.partition(' ')[0].rstrip(',')}`" in table
        for page in PAGES:
            if page.name != "upgrading.md":
                assert not re.search(rf"(?<![\w.]){re.escape(old)}(?![\w.])", page.read_text()), (page.name, old)


def test_private_names_of_other_packages_are_listed() -> None:
    """A private attribute of anything but `self` that this package defines nowhere is another package's."""
    trees = {path: ast.parse(path.read_text()) for path in (ROOT / "sgsd_lightning").rglob("*.py")}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_of_self(node)}
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    rows = (ROOT / "docs/upgrading.md").read_text().splitlines()
    for path, tree in trees.items():
        file = path.relative_to(ROOT / "sgsd_lightning").as_posix()
        listed = "".join(row for row in rows if f"`{file}`" in row)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and not is_of_self(node):
                known = node.attr in own or f"`{node.attr}`" in listed or node.attr in NOT_FOREIGN
                assert known, f"{file} uses {node.attr}, which docs/upgrading.md does not list"


def is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_the_readme_fits_a_page() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert not [line for line in lines if len(line) > 120]
