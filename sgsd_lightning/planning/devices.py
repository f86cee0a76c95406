"""What devices could do at best, by the name that `torch.cuda.get_device_name` gives them."""

from __future__ import annotations

import re

# Makers' data sheets: dense bfloat16 on tensor cores with float32 accumulation, which is half of what a sheet states
# "with sparsity": nvidia.com's data sheets of A100, A30, A10, L4, L40, L40S, H100, H200, GH200 and HGX B200, the
# architecture whitepapers of Ampere GA102 and Ada, and amd.com's data sheets of MI250X and MI300X.
_PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    (r"GB200", 2500.0),
    (r"B200", 2250.0),
    (r"B100", 1750.0),
    (r"H200 NVL", 835.5),
    (r"GH200|H200", 989.4),
    (r"H100 PCIe", 756.5),
    (r"H100 NVL", 835.5),
    (r"H100", 989.4),
    (r"A100", 312.0),
    (r"A30", 165.0),
    (r"A10", 125.0),
    (r"L40S", 362.0),
    (r"L40", 181.0),
    (r"L4", 121.0),
    (r"RTX 6000 Ada", 364.2),
    (r"RTX A6000", 154.8),
    (r"RTX 4090(?! D| Laptop)", 165.2),
    (r"RTX 3090(?! Ti)", 71.0),
    (r"MI300X", 1307.4),
    (r"MI250X", 383.0),
)
"""Teraflops by a pattern; the first that matches decides."""


def peak_flops_per_second(device_name: str) -> float | None:
    """The dense bfloat16 peak of one device; None for one that is not in the table."""
    for pattern, tera in _PEAK_TFLOPS:
        if re.search(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", device_name):
            return tera * 1e12
    return None
