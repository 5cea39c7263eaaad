"""The searches of a call: one for each piece of its texts, or one for each sample of a piece."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice

from attendant_server import records
from attendant_server.application.hypotheses import Attention
from attendant_server.application.jobs import TOKENS_DECODED_FOR_ONE
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.sampling import seeds_of
from attendant_server.application.tokenization import good, num_tokens
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.application.validation import TEXTS
from attendant_server.engine.calls import (
    Hypothesis,
    SearchTooLarge,
    TokenIds,
    TranslateCall,
    joined_timings,
)
from attendant_server.engine.pair_calls import AlignCall, AttentionWeights
from attendant_server.errors import InvalidRequest

MAX_RUNNING_SENTENCES = 256
"""Sentences of one call that the engine has at the same time, unless the call has more texts. A
long text must not need more places in the queue than there are."""


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
    num_samples = plan.num_samples
    pieces = [token_ids for text in good(texts) for token_ids in text.token_ids]
    size = max(MAX_RUNNING_SENTENCES, num_texts)
    if plan.seed is None and not plan.read_pieces.whole and len(pieces) <= size:
        return await plan.model.answer(TranslateCall(pieces, plan.options, deadline), may_wait)
    sources = [token_ids for token_ids in pieces for _ in range(num_samples)]
    seeds = list(seeds_of(plan.seed, places, texts, num_samples))
    prefixes: list[tuple[int, ...]] = []
    if plan.read_pieces.whole:
        prefixes = [
            text.prefix.token_ids if text.prefix is not None else ()
            for text in good(texts)
            for _ in range(len(text.pieces) * num_samples)
        ]
    calls, results = [], []
    for first in range(0, len(sources), size):
        part = slice(first, first + size)
        call = TranslateCall(
            sources[part], plan.options, deadline, seeds=seeds[part], prefixes=prefixes[part]
        )
        calls.append(call)
        try:
            results += await plan.model.answer(call, may_wait or first > 0)
        except SearchTooLarge as error:
            problems = {
                (first + i) // num_samples: problem for i, problem in error.problems.items()
            }
            raise SearchTooLarge(problems) from None
    if len(calls) > 1:
        records.current().engine = joined_timings([call.timings for call in calls])
    return results if num_samples == 1 else _joined_samples(results, num_samples)


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


def _joined_samples(
    results: Sequence[list[Hypothesis]], num_samples: int
) -> list[list[Hypothesis]]:
    """The hypotheses of each piece, from those of its samples."""
    return [
        list(chain.from_iterable(results[first : first + num_samples]))
        for first in range(0, len(results), num_samples)
    ]


def with_faults(
    texts: Sequence[PiecedText | InvalidRequest], problems: Mapping[int, str]
) -> list[PiecedText | InvalidRequest]:
    """The texts with further faults; the keys of ``problems`` count pieces of good texts."""
    record, results = records.current(), list(texts)
    owners = [
        i for i, text in enumerate(texts) if isinstance(text, PiecedText) for _ in text.pieces
    ]
    for number, problem in problems.items():
        i = owners[number]
        record.num_invalid_texts += not isinstance(results[i], InvalidRequest)
        results[i] = InvalidRequest(TEXTS.format(i), problem)
    record.num_input_tokens = num_tokens(results)
    return results
