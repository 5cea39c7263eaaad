"""Compares the answers of two servers of one bundle, graph by graph, as a client sees them.

Translations are the "same", a "tie" or "different" (`difference`). A tie is a choice between
candidates whose scores differ by less than the rounding errors may be.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from attendant_client import Client
from attendant_client.options import Pooling
from numpy.typing import NDArray

from bench.gpu.trial import Figures, rounded
from bench.quality.equivalence import difference

MASK = "[MASK]"
NUM_CANDIDATES = 5
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "max")
Pair = tuple[Client, Client]
"""Clients of the server under test and of the reference."""


def compare_translations(pair: Pair, texts: Sequence[str], bound: float, beam_size: int) -> Figures:
    """Encoder and decoder steps: tokens, and their log-probabilities within ``bound``."""

    def tokens(client: Client) -> list[list[tuple[int, float]]]:
        found = client.translate(texts, beam_size=beam_size, return_tokens=True)
        return [
            [(token.id, token.log_probability) for token in each.hypotheses[0].tokens]
            for each in found.raise_for_errors()
        ]

    ours, theirs = map(tokens, pair)
    kinds = Counter(difference(a, b, bound) for a, b in zip(ours, theirs, strict=True))
    same = [(a, b) for a, b in zip(ours, theirs, strict=True) if _ids(a) == _ids(b)]
    distances = [abs(p - q) for a, b in same for (_, p), (_, q) in zip(a, b, strict=True)]
    return {
        "num_texts": len(texts),
        "bound": bound,
        **{kind: kinds[kind] for kind in ("same", "tie", "different")},
        "max_log_probability_difference": rounded(max(distances, default=0.0)),
    }


def _ids(tokens: Iterable[tuple[int, float]]) -> list[int]:
    return [token_id for token_id, _ in tokens]


def compare_scores(pair: Pair, texts: Sequence[str]) -> Figures:
    """The scorer: log-probabilities of the reference's own translations."""
    translated = [each.text for each in pair[1].translate(texts).raise_for_errors()]
    pairs = list(zip(texts, translated, strict=True))

    def scores(client: Client) -> list[float]:
        found = client.score(pairs, return_tokens=True).raise_for_errors()
        return [number for each in found for number in each.log_probabilities]

    return _distance(*(np.array(scores(client)) for client in pair))


def compare_alignments(pair: Pair, texts: Sequence[str]) -> Figures:
    """The aligner: links between words, of translations that are the same."""
    ours, theirs = (
        [each.hypotheses[0] for each in client.translate(texts, return_alignments=True)]
        for client in pair
    )
    same = [
        tuple({(link.source_start, link.target_start) for link in h.alignments} for h in both)
        for both in zip(ours, theirs, strict=True)
        if both[0].text == both[1].text
    ]
    return {
        "num_texts": len(same),
        "num_links": sum(len(a | b) for a, b in same),
        "num_different_links": sum(len(a ^ b) for a, b in same),
    }


def compare_attention(
    pair: Pair, texts: Sequence[str], model: str, has_target: bool = True
) -> Figures:
    """The graph of attention weights, of all layers and heads, with each text as its own target.

    ``model`` is the name of the model. Encoders of texts have no target.
    """
    largest: dict[str, float] = {}
    for text in texts:
        target = text if has_target else None
        ours, theirs = (client.attention(text, target, model=model) for client in pair)
        for name in ("encoder", "decoder", "cross"):
            a, b = getattr(ours, name), getattr(theirs, name)
            if a is not None:
                largest[name] = max(largest.get(name, 0.0), float(np.abs(a - b).max()))
    return {"num_texts": len(texts), **{f"max_{k}": rounded(v) for k, v in largest.items()}}


def compare_embeddings(pair: Pair, texts: Sequence[str]) -> Figures:
    """The embedder: the smallest cosine between vectors of both, for each pooling."""
    return {
        "num_texts": len(texts),
        **{f"min_cosine_{name}": _smallest_cosine(pair, texts, name) for name in POOLINGS},
    }


def _smallest_cosine(pair: Pair, texts: Sequence[str], pooling: Pooling) -> float:
    ours, theirs = (
        client.embed(texts, pooling=pooling, normalize=True).raise_for_errors().vectors
        for client in pair
    )
    return round(float((ours.astype(np.float64) * theirs).sum(-1).min()), 7)


def compare_masks(pair: Pair, texts: Sequence[str]) -> Figures:
    """The head for masked tokens: candidates for the second word of each text."""
    masked = [" ".join([first, MASK, *rest]) for first, _, *rest in map(str.split, texts)]

    def candidates(client: Client) -> list[dict[int, float]]:
        found = client.fill_mask(masked, NUM_CANDIDATES).raise_for_errors()
        return [{c.id: c.probability for c in each.masks[0].candidates} for each in found]

    both = list(zip(*map(candidates, pair), strict=True))
    common = [(a[token], b[token]) for a, b in both for token in a.keys() & b.keys()]
    return {
        "num_candidates": sum(len(a) for a, _ in both),
        "num_common": len(common),
        "max_probability_difference": rounded(max((abs(p - q) for p, q in common), default=0.0)),
    }


def _distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Figures:
    return {"num_values": len(ours), "max_difference": rounded(float(np.abs(ours - theirs).max()))}
