"""Translations that lack terms of a glossary, and the beginnings of better ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from attendant_server.application.glossaries import TermMatch
from attendant_server.application.pieced_text import PiecedText, need_space
from attendant_server.application.term_placement import placed_terms
from attendant_server.engine.calls import Hypothesis
from attendant_server.streamed_text import UNSPACED
from attendant_server.tokenizer import TextTokenizer, TokenizerError

MAX_SEARCHES = 4
"""Further searches of a translation. If it lacks more terms, a search adds several of them."""


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
    def first_free(self) -> int:
        """The first character of the translation that further searches may change."""
        prefix = self.text.prefix
        if prefix is None or not prefix.is_forced:
            return self.num_kept
        return max(self.num_kept, len(prefix.decoded))

    @property
    def source(self) -> Sequence[int]:
        """The tokens of the piece."""
        return self.text.token_ids[self.number]

    def lacks_terms(self, tokenizer: TextTokenizer) -> bool:
        """Whether another search is needed."""
        if self.is_ended or self.num_searches >= min(MAX_SEARCHES, len(self.matches) + 1):
            return False
        terms = placed_terms(self.matches, tokenizer.decode(self.hypothesis.token_ids))
        return any(term.target is None for term in terms)


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """The beginning of another translation of a draft, up to a term that the draft lacks."""

    draft: Draft
    kept: str
    """The words before the term."""
    term: str
    """The term, and words after it that must stay."""
    token_ids: tuple[int, ...]
    """Its tokens, after those that the model or its target language demands."""
    num_characters: int
    """Characters of these tokens."""

    @property
    def text(self) -> str:
        """All its words."""
        return self.kept + self.term

    @property
    def ends_word(self) -> bool:
        """Whether the next token must begin a new word."""
        return self.term[-1].isalnum() and not UNSPACED.match(self.term[-1])


def new_beginning(draft: Draft, kept: str, term: str, tokenizer: TextTokenizer) -> Beginning | None:
    """The words ``kept`` and then a term; None if the model cannot write the term."""
    if not kept.strip() and tokenizer.decode(draft.hypothesis.token_ids)[:1].isupper():
        term = term[:1].upper() + term[1:]
    kept = spaced(kept, term)
    token_ids = text_tokens(tokenizer, kept + term)
    decoded = tokenizer.decode(token_ids)
    if tokenizer.num_unknown(token_ids) or not decoded.endswith(term):
        return None
    return Beginning(draft, kept, term, token_ids, len(decoded))


def spaced(words: str, following: str) -> str:
    """Words, and a space if the following ones need one."""
    return f"{words} " if need_space(words, following) else words


def text_tokens(tokenizer: TextTokenizer, text: str) -> tuple[int, ...]:
    """The tokens of a part of a translation, without special ones; none if it cannot be read."""
    try:
        return tokenizer.plain_ids(text, normalizes=False)
    except TokenizerError:
        return ()
