"""Maps of attention weights: which ones are drawn, with the labels of their tokens."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attendant_client.attention_results import Attention
from attendant_client.results import Token

Kind = Literal["encoder", "decoder", "cross"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORD_START = "\u2581"
"""The mark of a word's beginning in many vocabularies, which fonts lack."""
TITLES = {
    "encoder": "encoder self-attention",
    "decoder": "decoder self-attention",
    "cross": "cross-attention",
}


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """The weights of one layer and head, or their mean over all heads of a layer."""

    title: str
    weights: NDArray[np.float32]  # (queries, keys)
    queries: Sequence[str]
    keys: Sequence[str]


def present_kinds(attention: Attention, wanted: str) -> list[Kind]:
    """The kinds of attention to draw; ``wanted`` is one of `KINDS`, or "all".

    Raises ValueError for a kind that the model lacks.
    """
    present = [kind for kind in KINDS if getattr(attention, kind) is not None]
    if wanted == "all":
        return present
    found = [kind for kind in present if kind == wanted]
    if not found:
        raise ValueError(f"--kind {wanted}: {attention.call.model} has {', '.join(present)}")
    return found


def attention_map(
    attention: Attention, text: str, kind: Kind, layer: int | None, head: int | None
) -> AttentionMap:
    """The map of a layer, by default the last one, and of a head, by default the mean of all.

    Both are counted from 0. Raises ValueError for numbers that the model lacks.
    """
    weights, num_heads = getattr(attention, kind), attention.num_heads[kind]
    if layer is None:
        layer = max(i for i, number in enumerate(num_heads) if number)
    _check("--layer", kind, layer, len(num_heads))
    if not num_heads[layer]:
        raise ValueError(f"--layer {layer}: this layer has no {TITLES[kind]}")
    if head is not None:
        _check("--head", kind, head, num_heads[layer])
    of_layer = weights[layer, : num_heads[layer]]
    which = f"mean of {num_heads[layer]} heads" if head is None else f"head {head}"
    return AttentionMap(
        title=f"{TITLES[kind]} of {attention.call.model}, layer {layer}, {which}",
        weights=of_layer.mean(axis=0) if head is None else of_layer[head],
        queries=query_labels(attention, text, kind),
        keys=key_labels(attention, text, kind),
    )


def query_labels(attention: Attention, text: str, kind: Kind) -> list[str]:
    """The labels of the queries: tokens of the text, or those that the decoder predicts."""
    if kind == "encoder":
        return _labels(attention.source_tokens, text)
    return _labels(attention.target_tokens, attention.target)


def key_labels(attention: Attention, text: str, kind: Kind) -> list[str]:
    """The labels of the keys: tokens of the text, or those that the decoder reads."""
    if kind == "decoder":
        return _labels(attention.decoder_tokens, attention.target)
    return _labels(attention.source_tokens, text)


def _labels(tokens: Sequence[Token], text: str) -> list[str]:
    """The part of the text of each token, or the token itself if it has no part."""
    labels = [text[token.start : token.end].strip() or token.text for token in tokens]
    return [_printable(label).replace(WORD_START, "_") for label in labels]


def _printable(label: str) -> str:
    """``label`` without characters that would move the cursor."""
    composed = unicodedata.normalize("NFC", label)
    kept = (c if c.isprintable() else "\ufffd" for c in composed if not unicodedata.combining(c))
    return "".join(kept)


def _check(flag: str, kind: Kind, number: int, count: int) -> None:
    if not 0 <= number < count:
        limits = f"must be between 0 and {count - 1} for {TITLES[kind]}"
        raise ValueError(f"{flag} {limits}, got {number}")
