"""Two import packages, no claim on the name `kernels`, and imports that stay light."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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


def test_transformers_imports_from_the_repository_root() -> None:
    assert run_python("from transformers import Qwen3ForCausalLM; print(Qwen3ForCausalLM.__name__)") == (
        "Qwen3ForCausalLM\n"
    )


def test_the_kernels_need_torch_alone(tmp_path: Path) -> None:
    """torch itself may bring triton along; the kernels must not be the ones that ask for it."""
    code = (
        "import torch; before = set(sys.modules); import sgsd_kernels; new = set(sys.modules) - before; "
        f"print([name for name in {HEAVY!r} if name in new])"
    )
    assert run_python(code, cwd=tmp_path) == "[]\n"


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
    path = f"import sys; sys.path.insert(0, {str(tmp_path / 'unpacked')!r}); "
    code = "import sgsd_lightning, sgsd_kernels; print(sgsd_lightning.__file__); print(sgsd_kernels.__file__)"
    output = subprocess.run(
        [sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert all(line.startswith(str(tmp_path)) for line in output.stdout.splitlines())
