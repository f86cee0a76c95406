"""The quicker interpreter: the same bits, and everything as it was afterwards."""

from __future__ import annotations

import pytest
import torch

from tests.support.interpreter import patched_once_per_launch

pytest.importorskip("triton", reason="there is no interpreter without triton")


def test_it_changes_no_bit_and_leaves_nothing_behind() -> None:
    from sgsd_kernels import linear_logprob
    from triton import knobs
    from triton.runtime import interpreter

    if not knobs.runtime.interpret:
        pytest.skip("the kernels of this process are compiled")
    inputs = (torch.randn(5, 16), torch.randn(40, 16), torch.arange(5))
    before = (interpreter._patch_lang, interpreter.GridExecutor.__call__)
    plain = linear_logprob(*inputs, entropy=True, implementation="triton")
    with patched_once_per_launch() as is_quick:
        assert is_quick
        quick = linear_logprob(*inputs, entropy=True, implementation="triton")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(quick, plain, strict=True))
    assert before == (interpreter._patch_lang, interpreter.GridExecutor.__call__)


def test_another_triton_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import interpreter

    monkeypatch.delattr(interpreter, "_LangPatchScope")
    before = interpreter._patch_lang
    with patched_once_per_launch() as is_quick:
        assert not is_quick
        assert interpreter._patch_lang is before
