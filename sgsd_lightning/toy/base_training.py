"""Training of the toy world's base model: a tiny Qwen3 from scratch, on traces of every convention."""

from __future__ import annotations

import random

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from sgsd_lightning.toy.corpus import Corpus, TokenBatch
from sgsd_lightning.toy.muon import Muon
from sgsd_lightning.toy.recipe import BaseModelSettings, model_config


def new_model(seed: int, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Random weights of that seed, in float32; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(model_config(settings, tokenizer))


def train_base_model(seed: int, settings: BaseModelSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Train from scratch; how sums are rounded depends on the machine, so the weights do."""
    model = new_model(seed, settings, tokenizer)
    model.train()
    corpus = Corpus(settings.corpus, tokenizer, random.Random(seed))
    optimizers = _optimizers(model, settings)
    num_steps = settings.num_drill_steps + settings.num_chat_steps
    with tqdm(total=num_steps, desc="toy base model", unit="step") as progress:
        for step in range(num_steps):
            _set_learning_rates(optimizers, _learning_rate_factor(step, num_steps))
            batch = corpus.batch(settings.batch_size, is_drill=step < settings.num_drill_steps)
            loss = completion_loss(model, batch)
            model.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            progress.update()
            if step % 20 == 0:
                progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def completion_loss(model: Qwen3ForCausalLM, batch: TokenBatch) -> torch.Tensor:
    """Mean cross entropy of the completions' tokens, in nats."""
    # right padding under a causal mask needs no attention mask: no real token sees a padded one
    hidden = model.model(input_ids=batch.input_ids).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[batch.is_completion[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, batch.input_ids[:, 1:][batch.is_completion[:, 1:]])


def _optimizers(model: Qwen3ForCausalLM, settings: BaseModelSettings) -> tuple[torch.optim.Optimizer, ...]:
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    return (
        Muon(matrices, lr=settings.matrix_learning_rate),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    )


def _set_learning_rates(optimizers: tuple[torch.optim.Optimizer, ...], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _learning_rate_factor(step: int, num_steps: int) -> float:
    """Linear warm-up over 30 steps, constant, then linear to zero over the last half."""
    remaining = 1 - step / num_steps
    return min(1.0, (step + 1) / 30, 2 * remaining)
