"""The dtype that matrix products run in."""

from __future__ import annotations

import torch
from torch import Tensor


def product_dtype(factor: Tensor) -> torch.dtype:
    """Autocast's dtype where autocast is on for the tensor's device, else the tensor's own."""
    device_type = factor.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return factor.dtype
