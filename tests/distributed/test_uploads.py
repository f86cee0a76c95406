"""What goes to a GPU goes through pinned memory, without waiting."""

from __future__ import annotations

from typing import Any

import torch

from sgsd_lightning.distributed.uploads import to_device, upload


class Recorded:
    """Notes what is done with a tensor on the host."""

    is_cuda = False

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def pin_memory(self) -> Recorded:
        self.calls.append("pin_memory")
        return self

    def to(self, device: torch.device, **options: Any) -> Recorded:
        self.calls.append((device.type, options))
        return self


def test_uploads_to_a_gpu_are_pinned_and_do_not_block() -> None:
    tensor = Recorded()
    to_device(tensor, torch.device("cuda"))  # type: ignore[arg-type]
    assert tensor.calls == ["pin_memory", ("cuda", {"non_blocking": True})]


def test_elsewhere_nothing_is_pinned() -> None:
    tensor = Recorded()
    to_device(tensor, torch.device("cpu"))  # type: ignore[arg-type]
    assert tensor.calls == [("cpu", {})]


def test_values_and_dtype_arrive_under_any_default_device() -> None:
    with torch.device("meta"):
        found = upload([[1, 2], [3, 4]], torch.int32, torch.device("cpu"))
    assert found.dtype == torch.int32
    assert found.tolist() == [[1, 2], [3, 4]]
