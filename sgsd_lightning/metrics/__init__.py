"""Numbers about a run: accuracy at k, measurements that add up over processes, intervals, times, collapse rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgsd_lightning.metrics.accuracy import AverageAtK, MajorityAtK, PassAtK

__all__ = ["AverageAtK", "MajorityAtK", "PassAtK"]


def __getattr__(name: str) -> Any:
    """On first use, for torchmetrics takes long to import. Raises AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sgsd_lightning.metrics import accuracy

    return getattr(accuracy, name)
