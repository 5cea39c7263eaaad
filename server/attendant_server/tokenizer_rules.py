"""Rules for the definitions of tokenizers, so that a short text has no huge number of tokens."""

import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import Normalizer

MAX_REPLACEMENT = 64
"""Most characters that a step may put in the place of a match."""
MAX_EXPANSION = 64
"""Most characters that may become of one character of a text. In Unicode, 18 may."""
MAX_STEPS = 256
MAX_TOKEN_CHARACTERS = 2048
"""Longest token of a vocabulary: it is the text of one step of a translation."""
MAX_PROBES = 10_000
TRIED_TEXT = "The dog's 2 cafe\u0301s. \u72ac\U0001f436"
"""A text on which a tokenizer is tried when it is loaded."""
_PROBES = "".join(map(chr, itertools.chain(range(0x20, 0x500), (0x4E00, 0xAC00, 0xFDFA))))
"""Characters of common scripts, and the one that grows most by compatibility normalization."""


def tokenizer_problem(content: dict[str, Any], vocabulary: Sequence[str]) -> str | None:
    """A broken rule, as a message.

    ``content`` is that of tokenizer.json; ``vocabulary`` are all tokens.
    """
    for part in ("normalizer", "decoder"):
        for text in _replacements(content.get(part)):
            if len(text) > MAX_REPLACEMENT:
                return f"the {part} has a replacement of {len(text)} characters"
    longest = max(map(len, vocabulary), default=0)
    if longest > MAX_TOKEN_CHARACTERS:
        return f"a token has {longest} characters, more than {MAX_TOKEN_CHARACTERS}"
    return _expansion_problem(content.get("normalizer"))


def encoding_problem(
    encoding: Encoding, token_ids: Sequence[int], vocab_size: int | None
) -> str | None:
    """A broken rule of the tokens of a text, as a message.

    ``token_ids`` are those that the network gets, which has ``vocab_size`` tokens, if known.
    """
    parts = encoding.tokens, encoding.offsets, encoding.special_tokens_mask, encoding.type_ids
    if any(len(part) != len(token_ids) for part in parts):
        return "the post-processor adds different numbers of ids and tokens"
    largest = max(token_ids, default=0)
    if vocab_size is not None and largest >= vocab_size:
        return f"adds the token id {largest}, but the network has {vocab_size} tokens"
    return None


def _expansion_problem(normalizer: Any) -> str | None:
    """Apply one step after the other, so that no text grows far beyond the limit."""
    steps = list(_steps(normalizer))
    if len(steps) > MAX_STEPS:
        return f"the normalizer has more than {MAX_STEPS} steps"
    own = json.dumps(normalizer, ensure_ascii=False)
    probes = sorted(set(_PROBES) | set(own[:MAX_PROBES]))
    texts = probes
    for step in map(_opened, steps):
        texts = [step.normalize_str(text) for text in texts]
        for probe, text in zip(probes, texts, strict=True):
            if len(text) > MAX_EXPANSION:
                return f"the normalizer makes {len(text)} characters of {probe!r}"
    return None


def _steps(normalizer: Any) -> Iterator[Any]:
    """The definitions of the single steps, in their order."""
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        for each in normalizer["normalizers"]:
            yield from _steps(each)
    elif normalizer is not None:
        yield normalizer


def _opened(step: Any) -> Normalizer:
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    content = {"version": "1.0", "added_tokens": [], "normalizer": step, "model": model}
    opened: Normalizer = Tokenizer.from_str(json.dumps(content)).normalizer
    return opened


def _mapped_texts(character_map: bytes) -> list[str]:
    """The replacements in a map of SentencePiece: they follow a table and its size."""
    table_bytes = int.from_bytes(character_map[:4], "little")
    return character_map[4 + table_bytes :].decode("utf-8", "replace").split("\0")


def _replacements(part: Any) -> Iterator[str]:
    """The texts that the steps of a part put into texts."""
    if isinstance(part, dict):
        for name in ("content", "prepend", "replacement"):
            if isinstance(part.get(name), str):
                yield part[name]
        if isinstance(character_map := part.get("precompiled_charsmap"), str):
            yield from _mapped_texts(base64.b64decode(character_map))
        for value in part.values():
            yield from _replacements(value)
    elif isinstance(part, list):
        for value in part:
            yield from _replacements(value)
