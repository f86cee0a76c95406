"""Small tokenizers of each kind that models come with, each with a chat template and markers of its own."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sgsd_lightning.policy.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = ("<think>", "</think>", "<tool_response>")
_CHARACTERS = [chr(code) for code in range(33, 127)]


def finished(backend: Tokenizer, **settings: object) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        **settings,
    )


def unigram() -> PreTrainedTokenizerFast:
    """As SentencePiece trains it: a prefix before the text, pieces that look like markers in the vocabulary itself."""
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), ("<|im_end|>", 0.0), ("\n", -3.0)]
    backend = Tokenizer(models.Unigram([*pieces, *((character, -5.0) for character in _CHARACTERS)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace()
    return finished(backend, unk_token="<unk>")


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2 and Gemma have it: spaces are letters, runs of them added tokens too, unknown characters become
    bytes, the text is composed (NFKC)."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {piece: index for index, piece in enumerate(["<unk>", *bytes_, "\u2581", 2 * "\u2581", *_CHARACTERS])}
    merges = [("\u2581", "\u2581")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    backend.add_tokens([AddedToken(2 * "\u2581", special=False, normalized=False)])
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    return finished(backend, unk_token="<unk>")


def lower_casing() -> PreTrainedTokenizerFast:
    """Words of small letters; its markers are looked for in the normalized text too."""
    vocabulary = {piece: index for index, piece in enumerate(["<unk>", " ", "\n", *_CHARACTERS])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=True) for token in SPECIAL])
    backend.add_tokens([AddedToken(token, special=False, normalized=True) for token in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    )


def spaces_added() -> PreTrainedTokenizerFast:
    """Runs of spaces and line breaks are added tokens, as GPT-NeoX and Gemma have them."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(run, special=False, normalized=True) for run in ("  ", "\n\n")])
    return tokenizer


def written_in_python() -> PreTrainedTokenizerBase:
    """One without offsets, and without any file."""
    tokenizer = ByT5Tokenizer(extra_ids=2)
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL, *ADDED]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "bytes": byte_tokenizer,
    "spaces added": spaces_added,
    "unigram": unigram,
    "byte fallback": byte_fallback,
    "lower-casing": lower_casing,
    "written in Python": written_in_python,
}
