"""Vocabulary shortlists: for each source, the target tokens that its translation may use.

A shortlist holds the likeliest translations of each source token, by the lexical translation
probabilities of IBM Model 1 (Brown et al., "The Mathematics of Statistical Machine Translation",
1993), and the most frequent target tokens. The method follows Jean et al., "On Using Very Large
Target Vocabulary for Neural Machine Translation", 2015. Works on token ids only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenIds = Sequence[int]
WITH_SHORTLISTS = " with shortlists"
"""Suffix of the name of a search or a precision that uses shortlists."""
NUM_TRANSLATIONS = 32
"""Target tokens per source token.

In a vocabulary of both sides, one of them is the source token itself, to copy names.
"""
NUM_FREQUENT = 256
"""Frequent target tokens in every shortlist, including the special tokens."""
LEAST_SAVING = 8
"""Each of the two numbers above is at most the size of the vocabulary divided by this."""
NUM_ROUNDS = 4
"""Rounds of expectation maximization. More rounds hardly change the likeliest translations."""
MAX_PAIRS = 200_000
"""Limit of pairs to learn from. More pairs hardly change the shortlists."""
MAX_LINKS = 25_000_000
"""Limit of co-occurrences, source tokens times target tokens summed over pairs. Pairs are sampled
evenly to stay below it. A co-occurrence takes up to 60 bytes of memory."""
MAX_TOKENS = 64
"""Longer texts are skipped, because any of their words could be translations of each other."""


@dataclass(frozen=True, slots=True)
class Shortlists:
    """Shortlists of target token ids, as tables that a graph looks up."""

    frequent: NDArray[np.int32]  # (frequent)
    """Target tokens that every translation may use."""
    translations: NDArray[np.int32]  # (source vocab, translations)
    """Target tokens that each source token adds. Short rows are filled with a frequent token."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The number of tokens of a vocabulary, and its special and forced tokens."""

    size: int
    special_ids: TokenIds


def learn_shortlists(
    pairs: Iterable[tuple[TokenIds, TokenIds]],
    targets: Vocabulary,
    own_sources: Vocabulary | None = None,
) -> Shortlists:
    """Learn shortlists from pairs of source and target token ids.

    Every shortlist has the special tokens of targets. Sources have the vocabulary of the targets
    unless they have their own. Raises ValueError if no pair is short enough, or if the vocabulary
    is too small.
    """
    vocab_size = targets.size
    special = list(targets.special_ids)
    most = vocab_size // LEAST_SAVING
    if most < 2 * len(special):
        raise ValueError(f"a vocabulary of {vocab_size} tokens is too small for shortlists")
    chosen = [(s, t) for s, t in pairs if s and t and max(len(s), len(t)) <= MAX_TOKENS]
    if not chosen:
        raise ValueError(f"shortlists need pairs of texts of at most {MAX_TOKENS} tokens")
    chosen = chosen[:: sum(len(s) * len(t) for s, t in chosen) // MAX_LINKS + 1]
    occurring = np.concatenate([np.asarray(target) for _, target in chosen])
    counts = np.bincount(occurring, minlength=vocab_size)
    counts[special] = counts.max() + 1
    frequent = np.argsort(-counts, kind="stable")[: min(NUM_FREQUENT, most)]
    sources, translated, probabilities = _lexical_probabilities(chosen, vocab_size)
    num_translations = min(NUM_TRANSLATIONS, most)
    read = own_sources or targets
    translations = np.full((read.size, num_translations), frequent[0], np.int32)
    if own_sources is None:
        translations[:, 0] = np.arange(vocab_size)
    order = np.lexsort((translated, -probabilities, sources))
    sources, translated = sources[order], translated[order]
    _, first, num = np.unique(sources, return_index=True, return_counts=True)
    rank = np.arange(len(sources)) - np.repeat(first, num)  # within the same source token
    best = rank < num_translations - 1
    translations[sources[best], rank[best] + 1] = translated[best]
    # Padding of a source must not change its shortlist.
    translations[list(read.special_ids)] = frequent[0]
    return Shortlists(frequent.astype(np.int32), translations)


def _lexical_probabilities(
    pairs: Sequence[tuple[TokenIds, TokenIds]], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All pairs of source and target tokens that co-occur, and their translation probabilities."""
    links, occurrences = [], []  # each target token of each pair with every source token
    num_occurrences = 0
    for source, target in pairs:
        own = np.asarray(source, np.int64)[:, None] * vocab_size + np.asarray(target)
        links.append(own.ravel())
        own_occurrences = np.arange(num_occurrences, num_occurrences + len(target), dtype=np.int32)
        occurrences.append(np.broadcast_to(own_occurrences, own.shape).ravel())
        num_occurrences += len(target)
    codes, link = np.unique(np.concatenate(links), return_inverse=True)
    occurrence = np.concatenate(occurrences)
    del links, occurrences
    sources = codes // vocab_size
    probabilities = np.ones(len(codes))
    for _ in range(NUM_ROUNDS):
        weights = probabilities[link]
        # Each target token is generated by one source token.
        weights /= np.bincount(occurrence, weights)[occurrence]
        expected = np.bincount(link, weights)
        probabilities = expected / np.bincount(sources, expected)[sources]
    return sources, codes % vocab_size, probabilities
