"""The coverage penalty: hypotheses that leave parts of their source untranslated rank lower."""

from collections.abc import Sequence

import numpy as np

from attendant_server.application.piece_alignment import source_spans
from attendant_server.application.piece_searches import align_hypotheses
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.engine.calls import Hypothesis
from attendant_server.engine.pair_calls import AttentionWeights

LEAST_COVERAGE = 0.01
"""Attention to a source token that counts at least, so that the logarithm is finite."""


def uncovered(text: PiecedText, number: int, weights: AttentionWeights) -> float:
    """The logarithms of the attention to each source token, at most 1, added (Wu et al., 2016).

    0 if every token of the piece is attended to fully, else negative. ``weights`` (target, source)
    are those of a hypothesis of piece ``number``. Tokens without text are left out.
    """
    has_text = [start < end for start, end in source_spans(text, number)]
    coverage = np.asarray(weights, np.float64).sum(axis=0)[np.flatnonzero(has_text)]
    return float(np.log(np.clip(coverage, LEAST_COVERAGE, 1.0)).sum())


async def ranked_by_coverage(
    plan: TranslationPlan,
    pieces: Sequence[tuple[PiecedText, int]],
    results: Sequence[list[Hypothesis]],
    deadline: float,
) -> list[list[Hypothesis]]:
    """The best hypotheses of each piece by their scores and the coverage penalty of the plan.

    ``pieces`` are texts and numbers of their pieces. ``deadline`` is on the engine's clock.
    """
    assert plan.coverage is not None
    sources = [text.token_ids[number] for text, number in pieces]
    attention = await align_hypotheses(plan, sources, results, deadline)
    found = []
    for (text, number), hypotheses, weights in zip(pieces, results, attention, strict=True):
        scores = [
            hypothesis.score + plan.coverage.penalty * uncovered(text, number, own)
            for hypothesis, own in zip(hypotheses, weights, strict=True)
        ]
        order = sorted(range(len(scores)), key=lambda k: -scores[k])
        found.append([hypotheses[k] for k in order[: plan.coverage.num_hypotheses]])
    return found
