"""Where kernels run: on the GPU, or in the interpreter without the work that it does twice, or nowhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch

from tests.support.interpreter import patched_once_per_launch

NOWHERE = ("it needs a CUDA device (or TRITON_INTERPRET=1", "0 active drivers")
"""What is said by our dispatch and by Triton when a kernel is launched without a GPU and without the interpreter."""


def kernels_can_run() -> bool:
    """Whether there is a GPU or the kernels of this process are interpreted."""
    if torch.cuda.is_available():
        return True
    if importlib.util.find_spec("triton") is None:
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where a test of this folder makes its tensors: on the GPU where there is one, so that its kernels run there.

    A test marked ``on_cpu`` states something of the CPU, such as what is checked there alone.
    """
    if not torch.cuda.is_available() or request.node.get_closest_marker("on_cpu"):
        yield torch.device("cpu")
        return
    with torch.device("cuda") as chosen:
        yield chosen


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter() -> Iterator[None]:
    with patched_once_per_launch():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[None]:
    """Skip a test of this folder that reaches a kernel where none can run: no GPU and ``TRITON_INTERPRET=0``."""
    try:
        return (yield)
    except BaseException as error:
        if not kernels_can_run() and any(reason in str(error) for reason in NOWHERE):
            pytest.skip("kernels need a GPU, or TRITON_INTERPRET=1")
        raise
