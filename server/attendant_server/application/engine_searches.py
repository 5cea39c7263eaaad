"""The searches of a call in the engine, in parts if they are many."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from attendant_server import records
from attendant_server.application.catalog import ServedModel
from attendant_server.application.tokenization import num_tokens
from attendant_server.application.tokenization_options import CountedTokens
from attendant_server.engine.calls import (
    Hypothesis,
    SearchOptions,
    SearchTooLarge,
    Stops,
    TokenIds,
    TranslateCall,
    joined_timings,
)
from attendant_server.errors import InvalidRequest

Value = TypeVar("Value")
Tokens = TypeVar("Tokens", bound=CountedTokens)

MAX_RUNNING_SENTENCES = 256
"""Sentences of one call that the engine has at the same time, unless the call has more texts. A
long text must not need more places in the queue than there are."""


async def search_sources(
    model: ServedModel,
    sources: Sequence[TokenIds],
    options: SearchOptions,
    deadline: float,
    num_texts: int,
    may_wait: bool = False,
    num_samples: int = 1,
    seeds: Sequence[str] = (),
    prefixes: Sequence[tuple[int, ...]] = (),
    stops: Sequence[Stops | None] = (),
) -> list[list[Hypothesis]]:
    """The hypotheses of each source, or of all its samples; raises SearchTooLarge.

    ``seeds`` has one for each sample of each source, or none. ``prefixes`` and ``stops`` are those
    of the sources, or none. The caller has sent ``num_texts`` texts, of which the sources may be
    parts. ``may_wait``: whether they wait for room in the queue instead of being refused.
    """
    size, calls, results = max(MAX_RUNNING_SENTENCES, num_texts), [], list[list[Hypothesis]]()
    sources, prefixes = _repeated(sources, num_samples), _repeated(prefixes, num_samples)
    stops = _repeated(stops, num_samples)
    for first in range(0, len(sources), size):
        part = slice(first, first + size)
        call = TranslateCall(
            *(sources[part], options, deadline),
            seeds=seeds[part],
            prefixes=prefixes[part],
            stops=stops[part],
        )
        calls.append(call)
        try:
            results += await model.answer(call, may_wait or first > 0)
        except SearchTooLarge as error:
            problems = {
                (first + i) // num_samples: problem for i, problem in error.problems.items()
            }
            raise SearchTooLarge(problems) from None
    if len(calls) > 1:
        records.current().engine = joined_timings([call.timings for call in calls])
    return results if num_samples == 1 else _joined_samples(results, num_samples)


def with_faults(
    texts: Sequence[Tokens | InvalidRequest],
    num_sources: Iterable[int],
    problems: Mapping[int, str],
    field: str,
) -> list[Tokens | InvalidRequest]:
    """The texts with further faults.

    ``num_sources`` are the numbers of sources of each text, 0 for a text with a fault, and
    ``problems`` are those of sources. ``field`` is the name of a text in faults.
    """
    record, results = records.current(), list(texts)
    owners = [i for i, number in enumerate(num_sources) for _ in range(number)]
    for number, problem in problems.items():
        i = owners[number]
        record.num_invalid_texts += not isinstance(results[i], InvalidRequest)
        results[i] = InvalidRequest(field.format(i), problem)
    record.num_input_tokens = num_tokens(results)
    return results


def record_output(results: Iterable[Iterable[Hypothesis]]) -> list[int]:
    """Note the output tokens of all hypotheses in the call's record; returns their numbers."""
    lengths = [len(each.token_ids) for hypotheses in results for each in hypotheses]
    record = records.current()
    record.num_output_tokens, record.longest_output = sum(lengths), max(lengths, default=0)
    return lengths


def _repeated(values: Sequence[Value], number: int) -> Sequence[Value]:
    return values if number == 1 else [value for value in values for _ in range(number)]


def _joined_samples(
    results: Sequence[list[Hypothesis]], num_samples: int
) -> list[list[Hypothesis]]:
    """The hypotheses of each source, from those of its samples."""
    return [
        list(chain.from_iterable(results[first : first + num_samples]))
        for first in range(0, len(results), num_samples)
    ]
