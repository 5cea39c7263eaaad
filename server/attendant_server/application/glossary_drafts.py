"""Translations that lack terms of a glossary, and the beginnings of better ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from attendant_server.application.alignment import links, token_spans
from attendant_server.application.glossaries import TermMatch
from attendant_server.application.piece_alignment import source_spans
from attendant_server.application.pieced_text import PiecedText, need_space
from attendant_server.application.term_placement import (
    attention_of_words,
    place_of_missing,
    placed_terms,
    word_start,
)
from attendant_server.application.words import word_spans
from attendant_server.engine.calls import Hypothesis, SearchOptions
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.streamed_text import UNSPACED
from attendant_server.tokenizer import TextTokenizer, TokenizerError


@dataclass(slots=True, eq=False)
class Draft:
    """A hypothesis of a piece, which has to contain the terms of the piece."""

    text: PiecedText
    number: int
    """The number of the piece in its text."""
    matches: Sequence[TermMatch]
    hypothesis: Hypothesis
    seed: str
    """The seed of its search; "" if no tokens are drawn."""
    num_kept: int = 0
    """First characters of the translation, up to the last term that was added."""
    num_searches: int = 0
    """Further searches so far."""
    is_ended: bool = False
    """Whether no further search can help, because the translation would be too long."""
    problem: str = ""
    """The fault of the text, if its terms cannot be added."""

    @property
    def source(self) -> Sequence[int]:
        """The tokens of the piece."""
        return self.text.token_ids[self.number]

    def lacks_terms(self, tokenizer: TextTokenizer) -> bool:
        """Whether another search is needed."""
        if self.is_ended or self.num_searches > len(self.matches):
            return False
        terms = placed_terms(self.matches, tokenizer.decode(self.hypothesis.token_ids))
        return any(term.target is None for term in terms)


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """The beginning of another translation of a draft, up to a term that the draft lacks."""

    draft: Draft
    kept: str
    """The words of the draft before the term."""
    term: str
    token_ids: tuple[int, ...]
    """Its tokens, after those that the model or its target language demands."""
    num_characters: int
    """Characters of these tokens."""

    @property
    def ends_word(self) -> bool:
        """Whether the next token must begin a new word."""
        return self.term[-1].isalnum() and not UNSPACED.match(self.term[-1])

    def before_last_word(self) -> str | None:
        """The kept words but for the one before the term; None if that must stay."""
        words = word_spans(self.kept)
        if not words or words[-1][0] < first_free(self.draft):
            return None
        start, end = words[-1]
        is_word = self.kept[start:end].isalpha() and self.kept[end:].isspace()
        return self.kept[:start] if is_word else None

    def with_last_word(self, translation: str, tokenizer: TextTokenizer) -> "Beginning | None":
        """Like this with another word before the term.

        It is that of a ``translation`` which begins with the words before it. None if the
        translation has no other one.
        """
        kept = self.before_last_word()
        if kept is None or not translation.startswith(kept):
            return None
        start, end = next(iter(word_spans(translation[len(kept) :])), (0, 0))
        word = translation[len(kept) + start : len(kept) + end]
        if start or not word.isalpha() or f"{kept}{word}" == self.kept.rstrip():
            return None
        return new_beginning(self.draft, f"{kept}{word} ", self.term, tokenizer)


def beginnings(
    draft: Draft, weights: AttentionWeights, tokenizer: TextTokenizer, options: SearchOptions
) -> list[Beginning]:
    """The beginnings up to the first missing term, one for each of the term's translations.

    ``weights`` are those of the tokens of the draft, and ``tokenizer`` is that of translations.
    Beginnings that leave no room for further tokens are left out. If the model cannot write a
    translation of the term, the problem of the draft is set and there are none.
    """
    translation = tokenizer.decode(draft.hypothesis.token_ids)
    match, place = _first_missing(draft, weights, tokenizer, translation)
    found: list[Beginning] = []
    for number, term in enumerate(match.entry.targets):
        if term in match.entry.targets[:number]:
            continue
        beginning = new_beginning(draft, translation[:place], term, tokenizer)
        if beginning is None:
            field = f"{match.entry.field}.targets[{number}]"
            draft.problem = f"{field} has text that the model cannot write"
            return []
        if len(options.forced_token_ids) + len(beginning.token_ids) < options.max_output_tokens:
            found.append(beginning)
    return found


def _first_missing(
    draft: Draft, weights: AttentionWeights, tokenizer: TextTokenizer, translation: str
) -> tuple[TermMatch, int]:
    """The missing term that belongs before the others, and its place in the translation."""
    source = source_spans(draft.text, draft.number)
    target = token_spans(tokenizer.decode, draft.hypothesis.token_ids, translation)
    words = word_spans(draft.text.pieces[draft.number].text), word_spans(translation)
    found = list(links(weights, source, words[0], target, words[1]))
    terms = placed_terms(draft.matches, translation, found)
    if all(term.target for term in terms):  # the links have led to other places
        terms = placed_terms(draft.matches, translation)
    first = first_free(draft)
    place_of = partial(
        place_of_missing,
        translation=translation,
        links=found,
        attention=attention_of_words(weights, source, target),
        taken=[term.target for term in terms if term.target is not None],
        first=first,
    )
    missing = [m for m, term in zip(draft.matches, terms, strict=True) if term.target is None]
    places = [max(first, word_start(translation, place_of(match))) for match in missing]
    place = min(places)
    return missing[places.index(place)], place


def first_free(draft: Draft) -> int:
    """The first character of a translation that further searches may change."""
    prefix = draft.text.prefix
    if prefix is None or not prefix.is_forced:
        return draft.num_kept
    return max(draft.num_kept, len(prefix.decoded))


def new_beginning(draft: Draft, kept: str, term: str, tokenizer: TextTokenizer) -> Beginning | None:
    """The words ``kept`` and then a term; None if the model cannot write the term."""
    if not kept.strip() and tokenizer.decode(draft.hypothesis.token_ids)[:1].isupper():
        term = term[:1].upper() + term[1:]
    if need_space(kept, term):
        kept += " "
    token_ids = text_tokens(tokenizer, kept + term)
    decoded = tokenizer.decode(token_ids)
    if tokenizer.num_unknown(token_ids) or not decoded.endswith(term):
        return None
    return Beginning(draft, kept, term, token_ids, len(decoded))


def text_tokens(tokenizer: TextTokenizer, text: str) -> tuple[int, ...]:
    """The tokens of a part of a translation, without special ones; none if it cannot be read."""
    try:
        return tokenizer.plain_ids(text, normalizes=False)
    except TokenizerError:
        return ()
