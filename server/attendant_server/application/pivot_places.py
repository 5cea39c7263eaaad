"""Places in a text and in its translation over a pivot language, from those of both translations.

The *middle* is the text in the pivot language: the translation of the first model, and the text of
the second one.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence

from attendant_server.application.alignment import WordLink
from attendant_server.application.hypotheses import SentencePair
from attendant_server.application.splitting import Span

LEAST_WEIGHT = 0.05
"""Links with less weight, which is a product of two, are left out."""


def links_over(first: Sequence[WordLink], second: Sequence[WordLink]) -> list[WordLink]:
    """The links between words of a text and of its final translation.

    Two words are linked if both are linked to the same word of the middle; the weight is the
    product of the two, summed over all such words. Both arguments are in the order of the middle or
    of the final translation, as translations have them.
    """
    ends = [link.target[1] for link in first]
    starts = [link.target[0] for link in first]
    weights = defaultdict[tuple[Span, Span], float](float)
    for of_second in second:
        start, end = of_second.source
        for of_first in first[bisect_right(ends, start) : bisect_left(starts, end)]:
            weights[of_second.target, of_first.source] += of_first.weight * of_second.weight
    return [
        WordLink(source, target, min(1.0, weight))
        for (target, source), weight in sorted(weights.items())
        if weight >= LEAST_WEIGHT
    ]


def sentences_over(
    first: Sequence[SentencePair], second: Sequence[SentencePair]
) -> list[SentencePair]:
    """The sentences of a text and of its final translation, in order.

    Sentences whose places in the middle overlap are one. A sentence that one of the models has
    copied keeps its place between the others.
    """
    to_source = [(pair.target, pair.source) for pair in first]
    to_target = [(pair.source, pair.target) for pair in second]
    return [
        SentencePair(_place(firsts, middle, to_source), _place(seconds, middle, to_target))
        for middle, firsts, seconds in _overlapping(to_source, to_target)
    ]


Places = Sequence[tuple[Span, Span]]
"""Places in the middle, in order, and what they stand for in another text."""


def _overlapping(first: Places, second: Places) -> Iterator[tuple[Span, list[Span], list[Span]]]:
    """The runs of overlapping places in the middle, with what these stand for on both sides."""
    ordered = sorted(
        [(middle, 0, other) for middle, other in first]
        + [(middle, 1, other) for middle, other in second]
    )
    run: Span | None = None
    sides: tuple[list[Span], list[Span]] = [], []
    for (start, end), side, other in ordered:
        if run is None or start >= run[1]:
            if run is not None:
                yield run, *sides
            run, sides = (start, end), ([], [])
        run = run[0], max(run[1], end)
        sides[side].append(other)
    if run is not None:
        yield run, *sides


def _place(found: Sequence[Span], middle: Span, places: Places) -> Span:
    """The place of a run of sentences in another text; without sentences, that of its copy."""
    if found:
        return found[0][0], found[-1][1]
    before = [(span[1], other[1]) for span, other in places if span[1] <= middle[0]]
    from_end, to_end = before[-1] if before else (0, 0)
    return to_end + middle[0] - from_end, to_end + middle[1] - from_end
