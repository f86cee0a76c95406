"""Models and requests for timing rollouts: prompts of unequal lengths, completions of very unequal ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Qwen3Config

from sgsd_lightning.engines import GenerationRequest, end_of_sequence_ids
from sgsd_lightning.policy.byte_tokenizer import byte_tokenizer
from sgsd_lightning.prompts import ChatPrompts
from sgsd_lightning.scoring.attention import VARLEN
from sgsd_lightning.toy import ToyPolicy, ToyProblems
from sgsd_lightning.toy.prompts import STUDENT_TEMPLATE
from sgsd_lightning.types import SamplingSettings

TOY_SAMPLES = 4
PROMPT_TOKENS = (20, 200)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A random Qwen3. Its completions stop as tokens are drawn: geometrically, after ``mean_tokens`` on average."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_new_tokens: int
    mean_tokens: int


SHAPES = {
    "small": Shape(
        hidden_size=256,
        num_layers=4,
        num_heads=8,
        num_kv_heads=2,
        head_dim=32,
        intermediate_size=768,
        vocab_size=512,
        max_new_tokens=192,
        mean_tokens=48,
    ),
    "small, vocabulary of Qwen3": Shape(
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        intermediate_size=384,
        vocab_size=151_936,
        max_new_tokens=48,
        mean_tokens=16,
    ),
    "qwen3-0.6b": Shape(
        hidden_size=1024,
        num_layers=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=3072,
        vocab_size=151_936,
        max_new_tokens=1024,
        mean_tokens=256,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What every provider is given."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    requests: Sequence[GenerationRequest]
    sampling: SamplingSettings
    batch_size: int

    def with_requests(self, requests: Sequence[GenerationRequest]) -> Workload:
        """Return the same with other requests."""
        return replace(self, requests=requests)


def toy_workload(num_requests: int, batch_size: int, device: torch.device) -> Workload:
    """The demo's base model on its own problems, four samples each."""
    policy = ToyPolicy()
    tokenizer = policy.load_tokenizer()
    model = policy.load_model().to(device)
    stop_ids = end_of_sequence_ids(model, tokenizer)
    prompts = ChatPrompts(student_text=STUDENT_TEMPLATE, student_template_args={"enable_thinking": False})
    problems = ToyProblems("train", -(-num_requests // TOY_SAMPLES)).load()
    requests = [
        GenerationRequest(
            prompt_ids=prompts.student(tokenizer, problem), seed=TOY_SAMPLES * row + sample, stop_ids=stop_ids
        )
        for row, problem in enumerate(problems)
        for sample in range(TOY_SAMPLES)
    ]
    return Workload(
        name="toy base model",
        model=model,
        tokenizer=tokenizer,
        requests=requests[:num_requests],
        sampling=SamplingSettings(max_new_tokens=32),
        batch_size=batch_size,
    )


def random_workload(
    name: str, num_requests: int, batch_size: int, sampling: dict[str, float], device: torch.device, dtype: torch.dtype
) -> Workload:
    """A model of one of `SHAPES`; every request has a prompt of its own."""
    shape = SHAPES[name]
    model, tokenizer = _random_model(shape, device, dtype), byte_tokenizer()
    stop_ids = end_of_sequence_ids(model, tokenizer)
    generator = torch.Generator().manual_seed(0)
    low, high = PROMPT_TOKENS
    requests = []
    for seed in range(num_requests):
        length = int(torch.randint(low, high + 1, (), generator=generator))
        ids = tuple(torch.randint(0, 256, (length,), generator=generator).tolist())
        requests.append(GenerationRequest(prompt_ids=ids, seed=seed, stop_ids=stop_ids))
    return Workload(
        name=name,
        model=model,
        tokenizer=tokenizer,
        requests=requests,
        sampling=SamplingSettings(max_new_tokens=shape.max_new_tokens, **sampling),  # type: ignore[arg-type]
        batch_size=batch_size,
    )


def _random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    tokenizer = byte_tokenizer()
    config = Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=VARLEN)
    # logits of random weights are nearly equal, so that this bias is the end's log-odds against any other token
    bias = torch.zeros(shape.vocab_size, dtype=dtype)
    bias[tokenizer.eos_token_id] = math.log(shape.vocab_size / shape.mean_tokens)
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model.to(device).eval()
