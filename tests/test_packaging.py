"""Two import packages, no claim on the name `kernels`, and imports that stay light."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TRITON_OF_TORCH = {"2.11.0": "3.6.0", "2.12.0": "3.7.0", "2.13.0": "3.7.1"}
"""What PyPI's metadata of torch for Linux on x86-64 requires; the CPU wheels, which tests run on, name no triton."""
HEAVY = ("transformers", "lightning", "peft", "triton")


def run_python(code: str, *, cwd: Path = ROOT) -> str:
    """Standard output of a fresh interpreter with the checkout and its source root on the path."""
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'kernels')!r}]; "
    result = subprocess.run([sys.executable, "-c", path + code], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_import_name_kernels_is_not_ours() -> None:
    spec = importlib.util.find_spec("kernels")
    if spec is not None and spec.origin is not None:
        assert "site-packages" in Path(spec.origin).parts
    assert "sgsd-lightning" not in importlib.metadata.packages_distributions().get("kernels", [])


def test_the_kernels_folder_is_a_source_root_and_not_a_package() -> None:
    assert (ROOT / "kernels" / "sgsd_kernels" / "__init__.py").is_file()
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_the_kernels_need_torch_alone(tmp_path: Path) -> None:
    """torch itself may bring triton along; the kernels must not be the ones that ask for it."""
    code = (
        "import torch; before = set(sys.modules); import sgsd_kernels; new = set(sys.modules) - before; "
        f"print([name for name in {HEAVY!r} if name in new])"
    )
    assert run_python(code, cwd=tmp_path) == "[]\n"


def _named(requirements: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(requirement) for requirement in requirements]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def _required(*, without: tuple[str, ...] = ()) -> dict[str, Requirement]:
    """What pyproject.toml names, by canonical name, with all extras but some."""
    extras = [extra for name, extra in PROJECT["optional-dependencies"].items() if name not in without]
    return _named([*PROJECT["dependencies"], *(requirement for extra in extras for requirement in extra)])


@pytest.fixture
def constraints() -> dict[str, str]:
    """The version of each package in constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = _named([line for line in lines if line and not line.startswith("#")])
    assert all(str(pin.specifier).startswith("==") for pin in pinned.values())
    return {name: str(pin.specifier).removeprefix("==") for name, pin in pinned.items()}


def test_constraints_pin_the_triton_that_torch_requires(constraints: dict[str, str]) -> None:
    """The GPU wheels of torch take one release of triton; another pin installs beside the CPU wheel alone."""
    assert constraints["triton"] == TRITON_OF_TORCH[constraints["torch"]]
    installed = _named(importlib.metadata.requires("torch") or [])
    if "triton" in installed and Version(importlib.metadata.version("torch")).public == constraints["torch"]:
        assert constraints["triton"] in installed["triton"].specifier


def test_our_own_range_admits_the_triton_of_every_torch_it_admits() -> None:
    required = _named(PROJECT["dependencies"])
    admitted = [triton for torch, triton in TRITON_OF_TORCH.items() if torch in required["torch"].specifier]
    assert admitted
    assert all(triton in required["triton"].specifier for triton in admitted)


def test_constraints_pin_each_direct_dependency_and_nothing_else(constraints: dict[str, str]) -> None:
    required = _required(without=("flash",))
    assert set(constraints) == set(required)
    outside = {name: pin for name, pin in constraints.items() if pin not in required[name].specifier}
    assert outside == {}


def test_constraints_hold_for_every_python_that_the_project_is_for() -> None:
    """The classifiers are what `make resolve` goes through."""
    labels = [label.rpartition(" :: ")[2] for label in PROJECT["classifiers"] if ":: Python ::" in label]
    assert {"3.11", "3.12", "3.13"} <= set(labels)
    assert all(label in SpecifierSet(PROJECT["requires-python"]) for label in labels)
    assert "3.10" not in SpecifierSet(PROJECT["requires-python"])


def test_what_the_packages_import_is_what_they_require() -> None:
    """A package that only another one's dependencies bring along goes when they no longer do."""
    distributions = importlib.metadata.packages_distributions()
    required = _required()
    undeclared = {
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("sgsd_lightning", "kernels/sgsd_kernels")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in _imported(file)
        if not {canonicalize_name(owner) for owner in distributions.get(name, [name])} & set(required)
    }
    assert undeclared == set()


def _imported(file: Path) -> Iterator[str]:
    """Top-level names of what a file imports from outside the standard library and our own packages."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for module in modules:
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in {"sgsd_lightning", "sgsd_kernels"}:
                yield top


def test_every_module_imports_and_transformers_from_the_repository_root() -> None:
    code = """
import importlib, pkgutil
from transformers import Qwen3ForCausalLM
import sgsd_kernels, sgsd_lightning
names = [m.name for p in (sgsd_kernels, sgsd_lightning) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    assert int(run_python(code)) > 100


@pytest.mark.parametrize("arguments", [["fit", "--config", "sgsd_toy"], ["configs"], ["demo"]])
def test_a_missing_dependency_is_one_sentence(arguments: list[str], tmp_path: Path) -> None:
    """`-S` leaves site-packages out: nothing but the standard library and the checkout."""
    result = subprocess.run(
        [sys.executable, "-S", "-m", "sgsd_lightning", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "is not installed; `pip install .`" in line


def test_the_wheel_would_hold_the_weights_and_banks_of_the_toy_world() -> None:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="what a wheel holds is for hatchling to say")
    included = {file.distribution_path for file in builders.WheelBuilder(str(ROOT)).recurse_included_files()}
    toy = ROOT / "sgsd_lightning" / "toy"
    data = {str(path.relative_to(ROOT)) for path in toy.rglob("*") if path.suffix in (".json", ".safetensors")}
    assert len(data) >= 7
    assert data <= included


@pytest.mark.slow
def test_the_wheel_holds_both_packages_and_the_toy_configuration(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building the wheel without isolation needs hatchling")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "unpacked")
    packages = {name.split("/")[0] for name in names}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"sgsd_lightning", "sgsd_kernels"}
    assert "sgsd_lightning/configs/sgsd_toy.yaml" in names
    assert {f"sgsd_lightning/starter/{name}" for name in ("word_problems.jsonl", "word_bank.json")} <= set(names)
    path = f"import sys; sys.path.insert(0, {str(tmp_path / 'unpacked')!r}); "
    code = "import sgsd_lightning, sgsd_kernels; print(sgsd_lightning.__file__); print(sgsd_kernels.__file__)"
    output = subprocess.run(
        [sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert all(line.startswith(str(tmp_path)) for line in output.stdout.splitlines())
