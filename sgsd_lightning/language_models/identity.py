"""Digests of weights, tokenizers and JSON values, which identify a model in the keys of a cache."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

NUM_SAMPLED = 64
"""How many values of each parameter enter a digest unchanged."""
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(value: Any) -> str:
    """Return a digest of a JSON value; the order of an object's keys does not matter.

    Raises:
        TypeError: if the value holds something that JSON does not have.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    # half of a surrogate pair, which a policy may sample, has no UTF-8
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@torch.no_grad()
def weights_digest(model: nn.Module) -> str:
    """Return a digest of all weights, in one pass over them, the same on any device.

    Every parameter enters with its name, shape and dtype, some of its values, and the sum of all its bit patterns read
    as integers, which any single change alters.

    Raises:
        ValueError: if the weights are sharded: enter the model's session first.
    """
    return digest([[name, *_summary(name, parameter)] for name, parameter in model.named_parameters()])


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of the vocabulary and the chat template."""
    return digest([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])


def _summary(name: str, parameter: Tensor) -> list[Any]:
    if isinstance(parameter, DTensor):
        raise ValueError(
            f"the weight {name!r} is sharded, so its model has no identity here; ask within the model's session()"
        )
    bits = parameter.detach().contiguous().view(-1).view(_WORDS[parameter.element_size()])
    stride = max(1, len(bits) // NUM_SAMPLED)
    return [
        list(parameter.shape),
        str(parameter.dtype),
        int(bits.sum(dtype=torch.int64)),
        bits[::stride][:NUM_SAMPLED].tolist(),
    ]
