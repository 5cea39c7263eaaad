"""Checks that batching does not change results: each sentence alone, then all concurrently."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from attendant_client import Client

NUM_CALLERS = 48
NUM_SENTENCES = 800


def measure_invariance(
    client: Client,
    sources: Sequence[str],
    beam_size: int,
    model: str,
    num_callers: int = NUM_CALLERS,
) -> dict[str, float]:
    """Number of sentences that get different tokens among ``num_callers`` callers than alone.

    Also the largest difference between log-probabilities of equal tokens.
    """

    def translate(text: str) -> list[tuple[int, float]]:
        result = client.translate(text, beam_size=beam_size, model=model, return_tokens=True)
        return [(token.id, token.log_probability) for token in result.hypotheses[0].tokens]

    texts = random.Random(0).sample(sources, min(NUM_SENTENCES, len(sources)))
    alone = [translate(text) for text in texts]
    with ThreadPoolExecutor(num_callers) as callers:
        together = list(callers.map(translate, texts))
    pairs = list(zip(alone, together, strict=True))
    same = [(a, b) for a, b in pairs if [i for i, _ in a] == [i for i, _ in b]]
    differences = [abs(p - q) for a, b in same for (_, p), (_, q) in zip(a, b, strict=True)]
    return {
        "num_sentences": len(pairs),
        "num_with_other_tokens": len(pairs) - len(same),
        "max_log_probability_difference": max(differences, default=0.0),
    }
