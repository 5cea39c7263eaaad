"""Where the next search of a draft adds terms, and with which words before them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from attendant_server.application.alignment import links, token_spans
from attendant_server.application.glossaries import TermMatch
from attendant_server.application.glossary_drafts import (
    MAX_SEARCHES,
    Beginning,
    Draft,
    new_beginning,
    spaced,
)
from attendant_server.application.jobs import TOKENS_DECODED_FOR_ONE
from attendant_server.application.piece_alignment import source_spans
from attendant_server.application.splitting import Span
from attendant_server.application.term_placement import (
    PlacedTerm,
    attention_of_words,
    placed_terms,
    span_of_missing,
)
from attendant_server.application.words import word_spans
from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.tokenizer import TextTokenizer

MAX_DECODED = 20
"""Beginnings of one search that are decoded to the end: up to its last term."""
MAX_SCORED = 64
"""Beginnings of one search that the scorer compares: up to its other terms."""


@dataclass(slots=True, eq=False)
class TermPlace:
    """A term that the next search of a draft adds."""

    draft: Draft
    start: int
    """Where the words begin that are between the place before this one and the term."""
    first: int
    """Where the words begin that may be changed: those after other terms."""
    beginnings: list[Beginning]
    """The beginnings up to the term: one for each translation of it, and those with other words
    before the term. Never empty."""
    max_beginnings: int = MAX_DECODED
    """How many there may be."""

    def limit(self, max_beginnings: int) -> None:
        """Keep the first beginnings, and add no more than these."""
        self.max_beginnings = max_beginnings
        del self.beginnings[max_beginnings:]

    def before_last_word(self) -> str | None:
        """The words before the one before the term; None if that must stay."""
        kept = self.beginnings[0].kept
        words = word_spans(kept)
        if not words or words[-1][0] < self.first:
            return None
        start, end = words[-1]
        is_word = kept[start:end].isalpha() and kept[end:].isspace()
        return kept[:start] if is_word else None

    def add_words(self, words: Iterable[str], tokenizer: TextTokenizer) -> None:
        """Add beginnings with other words before the term, those with the first words first."""
        before = self.before_last_word()
        if before is None:
            return
        if not before.strip():
            words = [word[:1].upper() + word[1:] for word in words]
        terms = [(each.kept.rstrip(), each.term) for each in self.beginnings]
        others = (
            new_beginning(self.draft, f"{before}{word} ", term, tokenizer)
            for word in dict.fromkeys(words)
            for kept, term in terms
            if f"{before}{word}" != kept
        )
        num_free = self.max_beginnings - len(self.beginnings)
        self.beginnings += islice(filter(None, others), max(0, num_free))

    def likeliest(self, score_of: Mapping[Beginning, float]) -> Beginning:
        """The beginning with the best score; the scores may lack that of an only one."""
        one = len(self.beginnings) == 1
        return self.beginnings[0] if one else max(self.beginnings, key=score_of.__getitem__)

    def move(self, before: str, tokenizer: TextTokenizer, options: SearchOptions) -> None:
        """Let the beginnings follow other words than those before `start`, if there is room."""
        moved = [
            new_beginning(self.draft, before + each.kept[self.start :], each.term, tokenizer)
            for each in self.beginnings
        ]
        fitting = [each for each in moved if each is not None and _has_room(each, options)]
        self.beginnings = fitting or self.beginnings


def first_word(translation: str, before: str) -> str:
    """The word of a translation after the words ``before``; "" if there is none."""
    if not translation.startswith(before):
        return ""
    start, end = next(iter(word_spans(translation[len(before) :])), (1, 1))
    word = translation[len(before) :][start:end]
    return word if start == 0 and word.isalpha() else ""


def next_places(
    draft: Draft, weights: AttentionWeights, tokenizer: TextTokenizer, options: SearchOptions
) -> list[TermPlace]:
    """The places of the terms that the next search adds, in order.

    Only the words after the last of them are decoded again; those between are the draft's. So a
    search adds no more terms than needed to have all of them after `MAX_SEARCHES`. ``weights`` are
    those of the tokens of the draft, and ``tokenizer`` is that of translations. Terms that leave no
    room for further tokens are left out. The places but the last one share `MAX_SCORED`, so of many
    terms with many translations, only the first translations are tried. If the model cannot write a
    translation of a term, the problem of the draft is set and there are none.
    """
    translation = tokenizer.decode(draft.hypothesis.token_ids)
    terms, missing = _missing(draft, weights, tokenizer, translation)
    num_left = MAX_SEARCHES - draft.num_searches
    added = missing[: -(-len(missing) // num_left)]
    ends = [term.target[1] for term in terms if term.target is not None]
    # What follows the last place may lose terms, unless no search is left that adds them again.
    stays_until = max(ends, default=0) if num_left == 1 else 0
    found: list[TermPlace] = []
    before, end = "", 0
    for number, (match, span) in enumerate(added, 1):
        words = translation[end : span[0]]
        following = translation[span[1] : stays_until] if number == len(added) else ""
        kept = _joined(before, words)
        beginnings = _beginnings(draft, match, kept, following, tokenizer, options)
        if not beginnings:
            break
        last_end = max((each for each in ends if each <= span[0]), default=0)
        first = max(len(before), draft.first_free, len(kept) - (span[0] - last_end))
        found.append(TermPlace(draft, len(before), first, beginnings))
        before, end = beginnings[0].text, span[1]
    for place in found[:-1]:
        place.limit(max(1, MAX_SCORED // (len(found) - 1)))
    return [] if draft.problem else found


def work_of_next_places(draft: Draft) -> int:
    """The work of finding the places of the next terms, as a number of tokens in an answer.

    It grows with the square of the tokens of the translation, which are decoded for each of them,
    and each term looks at the attention to all tokens of the text.
    """
    source, target = len(draft.source), len(draft.hypothesis.token_ids)
    return (source + target) * (target + len(draft.matches)) // TOKENS_DECODED_FOR_ONE + source


def _beginnings(
    draft: Draft,
    match: TermMatch,
    kept: str,
    following: str,
    tokenizer: TextTokenizer,
    options: SearchOptions,
) -> list[Beginning]:
    """The words ``kept`` with each translation of a term, and then ``following`` if possible."""
    found: list[Beginning] = []
    for number, term in enumerate(match.entry.targets):
        if term in match.entry.targets[:number]:
            continue
        beginning = new_beginning(draft, kept, term, tokenizer)
        if beginning is None:
            field = f"{match.entry.field}.targets[{number}]"
            draft.problem = f"{field} has text that the model cannot write"
            return []
        if following:
            longer = new_beginning(draft, kept, _joined(term, following), tokenizer)
            beginning = longer or beginning
        if _has_room(beginning, options):
            found.append(beginning)
    return found


def _joined(before: str, words: str) -> str:
    """A term and the words of the draft after it, which may begin with a punctuation mark."""
    return (spaced(before, words) if words[:1].isalnum() else before) + words


def _has_room(beginning: Beginning, options: SearchOptions) -> bool:
    """Whether further tokens may follow."""
    num_tokens = len(options.forced_token_ids) + len(beginning.token_ids)
    return num_tokens < options.max_output_tokens


def _missing(
    draft: Draft, weights: AttentionWeights, tokenizer: TextTokenizer, translation: str
) -> tuple[list[PlacedTerm], list[tuple[TermMatch, Span]]]:
    """All terms, and the missing ones with the words that they replace, in order."""
    source = source_spans(draft.text, draft.number)
    target = token_spans(tokenizer.decode, draft.hypothesis.token_ids, translation)
    words = word_spans(draft.text.pieces[draft.number].text), word_spans(translation)
    found = list(links(weights, source, words[0], target, words[1]))
    terms = placed_terms(draft.matches, translation, found)
    if all(term.target for term in terms):  # the links have led to other places
        terms = placed_terms(draft.matches, translation)
    span_of = partial(
        span_of_missing,
        translation=translation,
        links=found,
        attention=attention_of_words(weights, source, target),
        taken=[term.target for term in terms if term.target is not None],
        first=draft.first_free,
    )
    missing = [m for m, term in zip(draft.matches, terms, strict=True) if term.target is None]
    spans = [(match, span_of(match)) for match in missing]
    return terms, _without_overlaps(sorted(spans, key=lambda each: each[1][0]))


def _without_overlaps(spans: Sequence[tuple[TermMatch, Span]]) -> list[tuple[TermMatch, Span]]:
    """The spans in their order; of words that several terms replace, the first one has them."""
    found: list[tuple[TermMatch, Span]] = []
    last = 0
    for match, (start, end) in spans:
        found.append((match, (max(start, last), max(end, last))))
        last = max(end, last)
    return found
