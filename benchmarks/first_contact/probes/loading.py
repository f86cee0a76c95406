"""Step 2: a policy loads under CUDA's default device, as under Lightning, and packed scores equal padded ones."""

from __future__ import annotations

import inspect
import logging

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.first_contact.probes.record import Record
from sgsd_lightning.policy import RandomPolicy
from sgsd_lightning.scoring.attention import row_layout
from sgsd_lightning.scoring.forward import bind_score
from sgsd_lightning.scoring.packing import pack
from sgsd_lightning.types import TokenSequence

SHARED_PROMPT = tuple(range(3, 150))
LENGTHS = (1, 60, 131)
SEQUENCES = (
    *(TokenSequence.causal(SHARED_PROMPT, (7,) * length) for length in LENGTHS),
    TokenSequence.causal((1, 2, 3), (4,) * 200),
)


class _Warnings(logging.Handler):
    """Keeps what the package warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def measure(record: Record) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    heard = _Warnings()
    logging.getLogger("sgsd_lightning").addHandler(heard)
    record.put(device=device.type, dtype=str(dtype).removeprefix("torch."), has_varlen_attn=_has_varlen_attn())
    record.at("loading under the device's default")
    model = _model("auto", device, dtype)
    record.put(attention=model.config._attn_implementation)
    record.at("scoring packed sequences")
    packed, packed_gradient = _score(model)
    record.at("scoring padded sequences")
    padded, padded_gradient = _score(_model("sdpa", device, dtype))
    record.put(
        logprob_gap=(packed - padded).abs().max().item(),
        gradient_gap=((packed_gradient - padded_gradient).norm() / padded_gradient.norm()).item(),
        warnings=heard.messages,
    )


def _has_varlen_attn() -> bool:
    """Whether torch has the kernels, with the arguments that packed attention needs."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= inspect.signature(varlen_attn).parameters.keys()


def _model(attention: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Heads of 128, half as many for keys and values, as Qwen3 has them."""
    with torch.device(device):
        model = RandomPolicy(
            hidden_size=512, dtype="bfloat16" if dtype == torch.bfloat16 else "float32", attention=attention
        ).load_model()
    model.to(device)
    bind_score(model)
    return model


def _score(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """[N] log-probabilities and the gradient of their mean in the embedding, both float32."""
    batch = pack(SEQUENCES, row_layout(model.config)).to(model.device)
    logprob = model.score(batch, implementation="chunked").logprob
    logprob.mean().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient is not None
    return logprob.detach().float(), gradient.float()
