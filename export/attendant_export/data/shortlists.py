"""Vocabulary shortlists: the target tokens among which the translation of a source is searched.

For every source token the target tokens that it most likely becomes, by the lexical translation
probabilities of IBM Model 1 (Brown et al., "The Mathematics of Statistical Machine Translation",
1993), and for every source the most frequent target tokens; after Jean et al., "On Using Very Large
Target Vocabulary for Neural Machine Translation", 2015. Knows token ids only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenIds = Sequence[int]
WITH_SHORTLISTS = " with shortlists"
"""Suffix of the name of a search or a precision that chooses tokens from shortlists."""
NUM_TRANSLATIONS = 32
"""Target tokens for each source token, itself among them: names stay what they are."""
NUM_FREQUENT = 256
"""Target tokens for every source, the special ones among them."""
LEAST_SAVING = 8
"""A small vocabulary has no more than this part of it in either."""
NUM_ROUNDS = 4
"""Rounds of expectation maximization; more change the likeliest translations little."""
MAX_PAIRS = 200_000
"""Pairs that need to be given: more change little."""
MAX_LINKS = 25_000_000
"""Target tokens times source tokens of all pairs that are looked at, taken evenly from those that
are given; each takes up to 60 bytes of memory."""
MAX_TOKENS = 64
"""Of longer texts, whose words could be translations of anything, nothing is learnt."""


@dataclass(frozen=True, slots=True)
class Shortlists:
    """What may translate what."""

    frequent: NDArray[np.int32]  # (frequent)
    """Target tokens that every sentence may use."""
    translations: NDArray[np.int32]  # (vocab, translations)
    """Those that a source token adds. Short rows are filled with a frequent token."""


def learn_shortlists(
    pairs: Iterable[tuple[TokenIds, TokenIds]], vocab_size: int, special_ids: Iterable[int]
) -> Shortlists:
    """Shortlists from token ids of sources and their targets, which share one vocabulary.

    Raises ValueError if there is no pair to learn from, or for a vocabulary that is too small.
    """
    special = list(special_ids)
    most = vocab_size // LEAST_SAVING
    if most < 2 * len(special):
        raise ValueError(f"a vocabulary of {vocab_size} tokens is too small for shortlists")
    chosen = [(s, t) for s, t in pairs if s and t and max(len(s), len(t)) <= MAX_TOKENS]
    if not chosen:
        raise ValueError(f"shortlists need pairs of texts of at most {MAX_TOKENS} tokens")
    chosen = chosen[:: sum(len(s) * len(t) for s, t in chosen) // MAX_LINKS + 1]
    targets = np.concatenate([np.asarray(target) for _, target in chosen])
    counts = np.bincount(targets, minlength=vocab_size)
    counts[special] = counts.max() + 1
    frequent = np.argsort(-counts, kind="stable")[: min(NUM_FREQUENT, most)]
    sources, translated, probabilities = _lexical_probabilities(chosen, vocab_size)
    num_translations = min(NUM_TRANSLATIONS, most)
    translations = np.full((vocab_size, num_translations), frequent[0], np.int32)
    translations[:, 0] = np.arange(vocab_size)
    order = np.lexsort((translated, -probabilities, sources))
    sources, translated = sources[order], translated[order]
    _, first, num = np.unique(sources, return_index=True, return_counts=True)
    rank = np.arange(len(sources)) - np.repeat(first, num)  # among those of the same source token
    best = rank < num_translations - 1
    translations[sources[best], rank[best] + 1] = translated[best]
    translations[special] = frequent[0]  # A list must not depend on how far its source is padded.
    return Shortlists(frequent.astype(np.int32), translations)


def _lexical_probabilities(
    pairs: Sequence[tuple[TokenIds, TokenIds]], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Source tokens, target tokens that occur with them, and the probability of each pair."""
    links, occurrences = [], []  # each target token of each pair, with every token of the source
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
        weights /= np.bincount(occurrence, weights)[
            occurrence
        ]  # each target token comes from one source
        expected = np.bincount(link, weights)
        probabilities = expected / np.bincount(sources, expected)[sources]
    return sources, codes % vocab_size, probabilities
