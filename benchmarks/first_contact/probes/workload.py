"""One forward and backward pass through the head by Triton, for tools that watch a process: ``workload N D V``."""

from __future__ import annotations

import sys

import torch
from sgsd_kernels import linear_logprob


def main(num_rows: int, width: int, vocabulary: int) -> None:
    hidden = (torch.randn(num_rows, width, device="cuda") * (4 / width**0.5)).bfloat16().requires_grad_()
    weight = torch.randn(vocabulary, width, device="cuda").bfloat16()
    targets = torch.randint(vocabulary, (num_rows,), device="cuda")
    linear_logprob(hidden, weight, targets, entropy=True, implementation="triton").logprob.sum().backward()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
