"""Word alignment: which words of a text a word of its translation comes from.

Words are taken from attention weights between tokens. Places are spans of characters.
"""

import os.path
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.splitting import Span, trimmed
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.errors import ModelWithoutHead

LEAST_WEIGHT = 0.15
"""Least part of the attention of a target word that a source word must have to be linked to it."""
LEAST_SHARE = 0.75
"""Least share of the best source word's score that the score of a further one must have."""
LEAST_ATTENTION = 0.2
"""Attention to a source word, from all target words together, that counts at least."""


def check_aligner(model: ModelDescription, field: str = "return_alignments") -> None:
    """Raise ModelWithoutHead for a field of a request if the bundle has no aligner."""
    if not model.can_align:
        raise ModelWithoutHead(f"{field}: {model.key} has no aligner")


class WordLink(NamedTuple):
    """A word of a translation and a word of its source."""

    source: Span
    target: Span
    weight: float
    """The part of the attention of the target word, between 0 and 1."""


def token_spans(
    decode: Callable[[Sequence[int]], str], token_ids: Sequence[int], text: str
) -> list[Span]:
    """The place of each token in the decoded ``text``; empty for a token without text.

    ``decode`` is what has decoded the text.
    """
    spans, start = [], 0
    for num_tokens in range(1, len(token_ids) + 1):
        decoded = decode(token_ids[:num_tokens])
        end = max(start, len(os.path.commonprefix([decoded, text])))
        spans.append(trimmed(text, (start, end)))
        start = end
    return spans


def links(
    weights: AttentionWeights,
    source_tokens: Sequence[Span],
    source_words: Sequence[Span],
    target_tokens: Sequence[Span],
    target_words: Sequence[Span],
) -> Iterator[WordLink]:
    """The links of each target word, in order.

    ``weights`` (target tokens, source tokens) belong to tokens with the given places; a token
    without text has an empty place. A target word is linked to the source word with the best score,
    and to others with nearly as good ones. The score is the share of the target word in the
    attention that all target words pay to the source word. So a content word, which many target
    words attend to, leaves articles and negations to their own translations.
    """
    if not (source_words and target_words and source_tokens and target_tokens):
        return
    source = _shares(source_tokens, source_words)  # (source tokens, source words)
    target = _shares(target_tokens, target_words)  # (target tokens, target words)
    target /= np.maximum(target.sum(axis=0), 1e-9)
    of_words = target.T @ weights @ source  # (target words, source words)
    scores = of_words / np.maximum(of_words.sum(axis=0), LEAST_ATTENTION)
    are_linked = scores >= LEAST_SHARE * scores.max(axis=1, keepdims=True)
    are_linked &= of_words >= LEAST_WEIGHT
    for j, i in np.argwhere(are_linked).tolist():
        yield WordLink(source_words[i], target_words[j], min(1.0, float(of_words[j, i])))


def _shares(tokens: Sequence[Span], words: Sequence[Span]) -> NDArray[np.float32]:
    """The share (tokens, words) of each token that belongs to each word."""
    starts, ends = np.array(tokens, np.float32).T[:, :, None]
    word_starts, word_ends = np.array(words, np.float32).T[:, None, :]
    overlaps = np.maximum(np.minimum(ends, word_ends) - np.maximum(starts, word_starts), 0)
    shares: NDArray[np.float32] = overlaps / np.maximum(overlaps.sum(axis=1, keepdims=True), 1)
    return shares
