"""Which sampled tokens count in the loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sgsd_lightning.types import Completion, FinishReason

THINK_TAGS = ("<think>", "</think>")


class LossMaskRule:
    """Drops special tokens, think tags and pure-newline tokens, by a lookup table over the vocabulary.

    A pure-newline token decodes to white space with at least one line break in it.

    Args:
        tokenizer: Whose tokens are classified.
        train_eos: Whether the end-of-sequence token that ended a completion counts, although it is special.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, train_eos: bool) -> None:
        self.train_eos = train_eos
        dropped = {*_special_ids(tokenizer), *_whole_tokens(tokenizer, THINK_TAGS), *_newline_ids(tokenizer)}
        self._counts = torch.ones(len(tokenizer), dtype=torch.bool)
        self._counts[sorted(dropped)] = False

    def __call__(self, completion: Completion) -> Tensor:
        """[T] bool, CPU: which of the sampled tokens count. Ids beyond the tokenizer's count."""
        ids = torch.tensor(completion.ids, dtype=torch.int64)
        mask = self._counts[ids.clamp(max=len(self._counts) - 1)] | (ids >= len(self._counts))
        if self.train_eos and completion.finish_reason is FinishReason.STOPPED and len(ids):
            mask[-1] = True
        return mask


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    marked = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(marked | set(tokenizer.all_special_ids))


def _whole_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> set[int]:
    vocabulary = tokenizer.get_vocab()
    return {vocabulary[text] for text in texts if text in vocabulary}


def _newline_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    texts = tokenizer.batch_decode([[index] for index in range(len(tokenizer))], skip_special_tokens=False)
    return [index for index, text in enumerate(texts) if "\n" in text and not text.strip()]
