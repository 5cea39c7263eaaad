"""Texts to embed in chunks: sentences, or as many sentences as fit into a number of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from attendant_server.application.descriptions import ModelDescription, Splitting
from attendant_server.application.pieced_text import smaller_parts
from attendant_server.application.splitting import Span, spans
from attendant_server.application.tokenization import (
    EMPTY,
    UNKNOWN,
    encode_all,
    length_problem,
    limited,
    readable,
    too_long,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    Truncation,
)
from attendant_server.application.validation import check_range, known_value
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText


class Chunking(IntEnum):
    """The chunks of a text; numbered as in the contract."""

    NONE = 1
    SENTENCES = 2
    TOKENS = 3


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a text that has a vector of its own."""

    span: Span
    """Start and end (exclusive) in the text as sent, in code points."""
    token_ids: list[int]
    num_fixed_tokens: int
    """Number of tokens that every chunk has: special ones and those of the prompt."""


@dataclass(frozen=True, slots=True)
class ChunkedText:
    """A text in chunks."""

    chunks: Sequence[Chunk]

    def __len__(self) -> int:
        """Number of tokens that the model reads."""
        return sum(len(chunk.token_ids) for chunk in self.chunks)

    @property
    def num_original_tokens(self) -> int:
        """The same number: chunks are not truncated."""
        return len(self)


@dataclass(frozen=True, slots=True)
class ChunkReader:
    """Splits the texts of one call into chunks and tokenizes them; a `Reader`."""

    prompt: str
    """Put before every chunk."""
    language: str
    """BCP 47 tag of the language of the texts; "" if it is unknown."""
    groups_sentences: bool

    def __call__(
        self,
        options: TokenizationOptions,
        field: str,
        texts: Sequence[str],
        first: int,
        one_by_one: bool,
    ) -> list[ChunkedText | InvalidRequest]:
        """The chunks of each text, or its fault."""
        return [
            self._chunked(options, field, number, text, one_by_one)
            for number, text in enumerate(texts, first)
        ]

    def _chunked(
        self, options: TokenizationOptions, field: str, number: int, text: str, one_by_one: bool
    ) -> ChunkedText | InvalidRequest:
        name = field.format(number)
        if problem := length_problem(options, len(text)):
            return InvalidRequest(name, problem)
        sentences = spans(text, Splitting.SENTENCES, self.language)
        try:
            found = list(self._fitting(options, field, number, text, sentences, one_by_one))
            if self.groups_sentences:
                groups = _groups(found, options)
                found = list(self._fitting(options, field, number, text, groups, one_by_one))
        except InvalidRequest as fault:
            return fault
        if not found:
            return InvalidRequest(name, UNKNOWN if sentences else EMPTY)
        return ChunkedText(found)

    def _fitting(
        self,
        options: TokenizationOptions,
        field: str,
        number: int,
        text: str,
        parts: Sequence[Span],
        one_by_one: bool,
    ) -> Iterator[Chunk]:
        """Parts with their tokens, smaller ones of those that are too long.

        Parts of which the model can read nothing are left out.
        """
        encoded = encode_all(
            options, [self.prompt + text[start:end] for start, end in parts], one_by_one
        )
        for part, found in zip(parts, encoded, strict=True):
            tokens = readable(found, field, number)
            if options.max_tokens is not None and len(tokens) > options.max_tokens:
                smaller = list(smaller_parts(options, text, part, len(tokens)))
                if len(smaller) == 1 or _num_fixed(tokens, options) >= options.max_tokens:
                    raise too_long(options, field, number, tokens)
                yield from self._fitting(options, field, number, text, smaller, one_by_one)
            elif not _is_unreadable(options, field, number, tokens):
                yield Chunk(part, tokens.token_ids, _num_fixed(tokens, options))


def _is_unreadable(
    options: TokenizationOptions, field: str, number: int, tokens: TokenizedText
) -> bool:
    try:
        limited(options, field, number, tokens, options.prompt_length)
    except InvalidRequest:
        return True
    return False


def _num_fixed(tokens: TokenizedText, options: TokenizationOptions) -> int:
    """Number of tokens that every chunk has: special ones and those of the prompt."""
    return sum(token.is_special or token.end <= options.prompt_length for token in tokens)


def _groups(chunks: Sequence[Chunk], options: TokenizationOptions) -> list[Span]:
    """Spans of as many adjacent chunks as have at most ``options.max_tokens`` together."""
    groups: list[Span] = []
    length = 0
    for chunk in chunks:
        num_new = len(chunk.token_ids) - chunk.num_fixed_tokens
        if groups and options.max_tokens and length + num_new <= options.max_tokens:
            groups[-1] = groups[-1][0], chunk.span[1]
            length += num_new
        else:
            groups.append(chunk.span)
            length = len(chunk.token_ids)
    return groups


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """The chunks that a request chooses. ``chunking`` is a number of `Chunking`, 0 for none."""

    chunking: int = 0
    max_tokens: int | None = None
    """Maximum number of tokens of a chunk. None for the limit of the model."""
    averages: bool = False
    """Whether a text has one vector, the average of those of its chunks."""


def chunk_reader(
    options: ChunkOptions,
    tokenization: TokenizationOptions,
    prompt: str,
    description: ModelDescription,
) -> tuple[ChunkReader, TokenizationOptions] | None:
    """The reader of chunks and its options, None for whole texts; raises InvalidRequest."""
    chunking = known_value("chunking", options.chunking, Chunking.NONE)
    if chunking is Chunking.NONE:
        if options.max_tokens is not None:
            raise InvalidRequest("max_chunk_tokens", "needs chunking")
        if options.averages:
            raise InvalidRequest("average_chunks", "needs chunking")
        return None
    if tokenization.truncation is not Truncation.REFUSE:
        raise InvalidRequest("truncation", "is for texts without chunking only")
    most = description.max_tokens
    if options.max_tokens is not None:
        check_range("max_chunk_tokens", options.max_tokens, 1, most)
        most = options.max_tokens
    languages = description.languages
    language = languages[0] if len(languages) == 1 else ""
    reader = ChunkReader(prompt, language, chunking is Chunking.TOKENS)
    return reader, replace(tokenization, max_tokens=most)
