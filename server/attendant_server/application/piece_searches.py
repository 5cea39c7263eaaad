"""The searches of a call: one for each piece of its texts, or one for each sample of a piece."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from attendant_server.application.engine_searches import MAX_RUNNING_SENTENCES, search_sources
from attendant_server.application.hypotheses import Attention
from attendant_server.application.jobs import TOKENS_DECODED_FOR_ONE
from attendant_server.application.pieced_text import PiecedText, numbers_of_pieces
from attendant_server.application.sampling import seeds_of
from attendant_server.application.tokenization import good
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.engine.calls import (
    Hypothesis,
    TokenIds,
)
from attendant_server.engine.pair_calls import AlignCall, AttentionWeights
from attendant_server.errors import InvalidRequest


def numbered_pieces(
    texts: Iterable[PiecedText | InvalidRequest],
) -> list[tuple[PiecedText, int]]:
    """Each piece of the good texts, as its text and its number in the text."""
    return [(text, number) for text in good(texts) for number in range(len(text.pieces))]


async def search_pieces(
    plan: TranslationPlan,
    texts: Sequence[PiecedText | InvalidRequest],
    places: Sequence[str],
    deadline: float,
    num_texts: int,
    may_wait: bool,
) -> list[list[Hypothesis]]:
    """The hypotheses of the pieces of all texts without a fault; raises SearchTooLarge.

    ``places`` are those of the texts, for seeds (`places_of`). The caller has sent ``num_texts``
    texts, of which these texts may be parts. ``may_wait``: whether they wait for room in the queue
    instead of being refused.
    """
    pieces = [token_ids for text in good(texts) for token_ids in text.token_ids]
    prefixes: list[tuple[int, ...]] = []
    if plan.read_pieces.whole:
        prefixes = [
            text.prefix.token_ids if text.prefix is not None else ()
            for text in good(texts)
            for _ in range(len(text.pieces))
        ]
    return await search_sources(
        *(plan.model, pieces, plan.options, deadline, num_texts, may_wait),
        num_samples=plan.num_samples,
        seeds=list(seeds_of(plan.seed, places, numbers_of_pieces(texts), plan.num_samples)),
        prefixes=prefixes,
    )


async def align_pieces(
    plan: TranslationPlan,
    pieces: Sequence[tuple[PiecedText, int]],
    results: Sequence[list[Hypothesis]],
    deadline: float,
    is_needed: Callable[[PiecedText, int, TokenIds], bool],
    known: Attention = (),
) -> Attention:
    """The attention weights of those hypotheses of each piece that need them, None for others.

    ``pieces`` are texts and numbers of their pieces, and ``results`` their hypotheses, about whose
    tokens ``is_needed`` is asked. Weights that are ``known`` are taken from there.
    """
    found: list[list[AttentionWeights | None]] = [list(own) for own in known]
    found = found or [[None] * len(own) for own in results]
    wanted = [
        (piece, k)
        for piece, ((text, number), hypotheses) in enumerate(zip(pieces, results, strict=True))
        for k, hypothesis in enumerate(hypotheses)
        if found[piece][k] is None and is_needed(text, number, hypothesis.token_ids)
    ]
    sources = [text.token_ids[number] for text, number in pieces]
    pairs = [(sources[piece], results[piece][k].token_ids) for piece, k in wanted]
    for (piece, k), weights in zip(wanted, await _align(plan, pairs, deadline), strict=True):
        found[piece][k] = weights
    return found


def work_of_places(attention: Attention) -> int:
    """The work of finding the places of tokens, as a number of tokens in an answer.

    Only hypotheses with attention weights count. It grows with the square of their lengths, and
    with the length of the text.
    """
    shapes = [weights.shape for own in attention for weights in own if weights is not None]
    return sum(
        target * (target + source) // TOKENS_DECODED_FOR_ONE + source for target, source in shapes
    )


async def align_hypotheses(
    plan: TranslationPlan,
    sources: Sequence[TokenIds],
    results: Sequence[list[Hypothesis]],
    deadline: float,
) -> list[list[AttentionWeights]]:
    """The attention weights of each hypothesis of each source."""
    pairs = [
        (source, hypothesis.token_ids)
        for source, hypotheses in zip(sources, results, strict=True)
        for hypothesis in hypotheses
    ]
    weights = iter(await _align(plan, pairs, deadline))
    return [list(islice(weights, len(hypotheses))) for hypotheses in results]


async def _align(
    plan: TranslationPlan, pairs: Sequence[tuple[TokenIds, TokenIds]], deadline: float
) -> list[AttentionWeights]:
    """The attention weights of pairs of sources and translations."""
    found: list[AttentionWeights] = []
    for first in range(0, len(pairs), MAX_RUNNING_SENTENCES):
        call = AlignCall(pairs[first : first + MAX_RUNNING_SENTENCES], deadline)
        found += await plan.model.answer_further(call)
    return found
