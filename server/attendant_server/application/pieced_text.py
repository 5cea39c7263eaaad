"""Texts to translate, in pieces that the model can read: sentences, or parts of long ones."""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from attendant_server.application.copying import Piece, piece
from attendant_server.application.descriptions import Splitting
from attendant_server.application.splitting import Span, clause_end, spans, trimmed
from attendant_server.application.tokenization import (
    EMPTY,
    LANGUAGE_CODE,
    encode_all,
    length_problem,
    limited,
    too_long,
    with_language,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
)
from attendant_server.errors import InvalidRequest
from attendant_server.streamed_text import UNSPACED
from attendant_server.tokenized_text import TokenizedText
from attendant_server.tokenizer import TextTokenizer, TokenizerError

_CODE = re.compile(rf"{LANGUAGE_CODE.pattern}\s*")
SPARE_TOKENS = 2
"""A part of a text may have more tokens alone than within the text."""


@dataclass(frozen=True, slots=True)
class TargetPrefix:
    """The beginning of a translation, which the model continues."""

    text: str
    token_ids: tuple[int, ...]
    num_forced_tokens: int
    """Number of tokens before the first one that the model chooses."""
    decoded: str
    """The text of these tokens, which may differ from the prefix as it was sent."""
    is_forced: bool = True
    """Whether all hypotheses begin with it."""

    def continued_by(self, words: str) -> str | None:
        """The prefix as sent and the rest of decoded words; None unless they begin with it."""
        if not words.startswith(self.decoded):
            return None
        return self.text + words[len(self.decoded) :]


@dataclass(frozen=True, slots=True)
class PiecedText:
    """A text in pieces, with the tokens of each. The text between the pieces is copied."""

    text: str
    """The text without the code of its target language."""
    begin: int
    """The place of the text in the text as sent, in code points."""
    pieces: Sequence[Piece]
    token_ids: Sequence[list[int]]
    """The tokens of each piece."""
    num_tokens: int
    """Number of tokens that the model reads."""
    num_original_tokens: int
    """Number of tokens before truncation."""
    prefix: TargetPrefix | None = None
    """The beginning of the translation of the only piece, if the caller gives it."""
    tokens: Sequence[TokenizedText] = ()
    """The tokens of each piece with their places, if the reader keeps them."""

    def decoded(
        self, tokenizer: TextTokenizer, token_ids: Sequence[int], filled: str | None = None
    ) -> str:
        """The translation of a piece, without its copies.

        ``filled`` is the decoded text if unknown tokens in it have been replaced.
        """
        whole = tokenizer.decode(token_ids) if filled is None else filled
        if self.prefix is None or not self.prefix.is_forced:
            return whole
        continued = self.prefix.continued_by(whole)
        if continued is None:  # later bytes can change the text of bytes before them
            continued = self.prefix.text + tokenizer.decode(
                token_ids[self.prefix.num_forced_tokens :]
            )
        return continued

    def words(self, tokenizer: TextTokenizer, token_ids: Sequence[int]) -> str:
        """The complete words of the translation of a piece that begins with these tokens."""
        words = tokenizer.decode_words(token_ids)
        if self.prefix is None or not self.prefix.is_forced:
            return words
        return self.prefix.continued_by(words) or ""

    def __len__(self) -> int:
        """Number of tokens that the model reads."""
        return self.num_tokens

    def before(self, number: int, last: str, content: str) -> str:
        """The text between piece ``number - 1`` and ``number``, both or one of which may not exist.

        A space is added between sentences of a script without spaces if their translations ``last``
        and ``content`` need one.
        """
        start = self.pieces[number - 1].end if number else 0
        end = self.pieces[number].start if number < len(self.pieces) else len(self.text)
        if start == end > 0 and UNSPACED.match(self.text[start - 1]) and need_space(last, content):
            return " "
        return self.text[start:end]

    def join(self, contents: Sequence[str]) -> tuple[str, list[Span]]:
        """The translation of the text and the place of each piece in it.

        ``contents`` are the translations of the pieces with their copies.
        """
        if len(contents) == 1:
            before, after = self.text[: self.pieces[0].start], self.text[self.pieces[0].end :]
            return before + contents[0] + after, [(len(before), len(before) + len(contents[0]))]
        parts, places, length, last = [], [], 0, ""
        for number, content in enumerate(contents):
            gap = self.before(number, last, content)
            places.append((length + len(gap), length + len(gap) + len(content)))
            parts += [gap, content]
            length, last = places[-1][1], content
        return "".join([*parts, self.before(len(self.pieces), "", "")]), places


def need_space(last: str, following: str) -> bool:
    """Whether a space belongs between two parts of a text."""
    if not last or not following or last[-1].isspace() or following[0].isspace():
        return False
    return not (UNSPACED.match(last[-1]) or UNSPACED.match(following[0]))


def numbers_of_pieces(texts: Iterable[PiecedText | InvalidRequest]) -> list[int]:
    """The number of pieces of each text; 0 for a text with a fault."""
    return [0 if isinstance(text, InvalidRequest) else len(text.pieces) for text in texts]


@dataclass(frozen=True, slots=True)
class PieceReader:
    """Splits and tokenizes the texts of one call."""

    splitting: Splitting
    language: str
    """BCP 47 tag of the language of the texts; "" if it is unknown."""
    whole: Collection[int] = ()
    """Numbers of texts that are not split, and of which nothing is copied."""
    keeps_tokens: bool = False
    """Whether the texts keep the places of their tokens."""
    aligns_copies: bool = False
    """Whether texts with copies inside of pieces keep them, too."""

    def __call__(
        self,
        options: TokenizationOptions,
        field: str,
        texts: Sequence[str],
        first: int,
        one_by_one: bool,
    ) -> list[PiecedText | InvalidRequest]:
        """The pieces of each text, or its fault; a `Reader`.

        A part that is too long is cut, unless texts are not split. If texts are normalized, a text
        may have no pieces, because all of it is copied.
        """
        readings = [
            self._reading(options, field, text, number) for number, text in enumerate(texts, first)
        ]
        to_encode = [reading.code + each.text for reading in readings for each in reading.pieces]
        tokens = iter(encode_all(options, to_encode, one_by_one))
        return [reading.result(list(islice(tokens, len(reading.pieces)))) for reading in readings]

    def _reading(
        self, options: TokenizationOptions, field: str, text: str, number: int
    ) -> "_Reading":
        code = _CODE.match(text) if options.text_codes else None
        begin = code.end() if code else 0
        is_whole = number in self.whole
        splitting = Splitting.NONE if is_whole else self.splitting
        cuts = splitting is not Splitting.NONE
        reading = _Reading(
            *(options, field, number, text[begin:], text[:begin], cuts, is_whole),
            keeps_tokens=self.keeps_tokens,
            aligns_copies=self.aligns_copies,
        )
        if not length_problem(options, len(text)):
            parts = spans(reading.text, splitting, self.language)
            reading.is_empty = not parts
            reading.pieces = list(filter(None, map(reading.piece, parts)))
        return reading


@dataclass(slots=True)
class _Reading:
    """The reading of one text."""

    options: TokenizationOptions
    field: str
    number: int
    text: str
    code: str
    """The code of the target language, which the model reads before each piece."""
    cuts: bool
    """Whether pieces that are too long are cut."""
    is_whole: bool
    """Whether the text has one piece with nothing to copy."""
    keeps_tokens: bool
    aligns_copies: bool
    pieces: Sequence[Piece] = ()
    is_empty: bool = True

    def piece(self, part: Span) -> Piece | None:
        """The piece of a part of the text; None if there is nothing to translate."""
        content = self.text[slice(*part)]
        if not self.options.normalizes:
            return Piece(*part, content)
        if self.is_whole:
            return Piece(*part, content.strip())
        return piece(self.text, part, self.options.tokenizer.can_read)

    def result(
        self, encoded: Sequence[TokenizedText | TokenizerError]
    ) -> PiecedText | InvalidRequest:
        """The text with the tokens of its pieces, or its fault."""
        if problem := length_problem(self.options, len(self.code) + len(self.text)):
            return InvalidRequest(self.field.format(self.number), problem)
        found: list[tuple[Piece, TokenizedText]] = []
        try:
            for whole, tokens in zip(self.pieces, encoded, strict=True):
                found += self._fitting(whole, tokens)
        except InvalidRequest as fault:
            return fault
        if not found and (self.is_empty or self.is_whole or not self.options.normalizes):
            return InvalidRequest(self.field.format(self.number), EMPTY)
        token_ids = [tokens.token_ids for _, tokens in found]
        has_copies = self.aligns_copies and any(each.has_inner_copies for each, _ in found)
        return PiecedText(
            self.text,
            len(self.code),
            [each for each, _ in found],
            token_ids,
            num_tokens=sum(map(len, token_ids)),
            num_original_tokens=sum(tokens.num_original_tokens for _, tokens in found),
            tokens=[tokens for _, tokens in found] if self.keeps_tokens or has_copies else (),
        )

    def _fitting(
        self, whole: Piece, encoded: TokenizedText | TokenizerError
    ) -> list[tuple[Piece, TokenizedText]]:
        """The piece with its tokens, or smaller ones; none if the model can read nothing of it."""
        options, field, number = self.options, self.field, self.number
        tokens, prompt_length = with_language(options, field, encoded, number)
        if tokens.is_empty_after(prompt_length):
            return []
        is_long = options.max_tokens is not None and len(tokens) > options.max_tokens
        if self.is_whole or (is_long and not self.cuts):
            return [(whole, limited(options, field, number, tokens, prompt_length))]
        if not is_long:
            return [(whole, tokens)]
        parts = list(smaller_parts(options, self.text, (whole.start, whole.end), len(tokens)))
        if len(parts) == 1:
            raise too_long(options, field, number, tokens)
        smaller = list(filter(None, map(self.piece, parts)))
        encoded_parts = encode_all(options, [self.code + each.text for each in smaller], True)
        return [
            fitting
            for each, part_tokens in zip(smaller, encoded_parts, strict=True)
            for fitting in self._fitting(each, part_tokens)
        ]


def smaller_parts(
    options: TokenizationOptions, text: str, part: Span, num_tokens: int
) -> Iterator[Span]:
    """Smaller parts of a part with ``num_tokens`` tokens, each of about ``options.max_tokens``."""
    start, end = part
    content = text[start:end]
    encoded = options.tokenizer.encode(content, normalizes=options.normalizes)
    ends = sorted(token.end for token in encoded if not token.is_special)
    room = max(1, (options.max_tokens or 0) - (num_tokens - len(ends)) - SPARE_TOKENS)
    first = 0  # index of the first token that is left
    while len(ends) - first > room:
        begin = start - part[0]
        cut = clause_end(content, begin, max(ends[first + room - 1], begin + 1))
        yield trimmed(text, (start, part[0] + cut))
        start, first = part[0] + cut, bisect_right(ends, cut, first)
    yield start, end
