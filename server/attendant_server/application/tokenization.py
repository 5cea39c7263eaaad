"""Tokenization of a call's texts, within limits; long texts off the event loop."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import TypeAlias, TypeVar

from attendant_server import records
from attendant_server.application.jobs import JobRunner
from attendant_server.application.quotas import current_usage
from attendant_server.application.validation import known_value
from attendant_server.errors import InvalidRequest
from attendant_server.records import CallRecord
from attendant_server.tokenizer import TextTokenizer, Token, TokenizedText, TokenizerError

MAX_INLINE_CHARACTERS = 1000
"""Characters that take about a millisecond to tokenize. For fewer, a thread switch costs more than
it saves."""
MAX_JOB_CHARACTERS = 10_000
"""Long calls are split into jobs, so that other calls run in between and cancelling is quick."""

SECOND_TEXTS = "text_pairs[{}]"
"""The name of the second text of a pair, for messages; ``{}`` stands for its number."""

TokenizedOrError: TypeAlias = TokenizedText | InvalidRequest
LANGUAGE_CODE = re.compile(r">>[^<]+<<")
"""A token before a text that chooses the target language."""
EMPTY = "is empty, or has nothing that the model can read"
Text = TypeVar("Text")
Result = TypeVar("Result")
Entry = TypeVar("Entry")


class Truncation(IntEnum):
    """The treatment of texts with too many tokens; numbered as in the contract."""

    REFUSE = 1
    RIGHT = 2
    """Tokens are dropped at the end."""
    LEFT = 3
    """Tokens are dropped at the beginning."""


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """The number of tokens before and after truncation."""

    num_original_tokens: int
    num_kept_tokens: int
    truncation: Truncation


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that the model reads together."""

    first: str
    second: str

    def __len__(self) -> int:
        """Number of characters."""
        return len(self.first) + len(self.second)


@dataclass(frozen=True, slots=True)
class TokenizationOptions:
    """Tokenization options of a call's texts."""

    tokenizer: TextTokenizer
    max_tokens: int | None
    """Maximum tokens of one text, including special tokens. If None, there is no limit, and empty
    texts are allowed."""
    truncation: Truncation = Truncation.REFUSE
    max_total_tokens: int | None = None
    """Maximum tokens of the whole call."""
    before: Sequence[Token] = ()
    """Tokens put before every text."""
    after: Sequence[Token] = ()
    """Tokens put after every text."""
    text_codes: Collection[int] = ()
    """Tokens of languages with which a text may begin. It must, unless ``before`` ends with one."""
    prompt_length: int = 0
    """Number of first characters of every text that are a prompt. Truncation keeps the prompt, and
    a prompt alone is no text."""

    def report(self, text: TokenizedText) -> TruncationReport | None:
        """The truncation of a text; None when no tokens were dropped."""
        if len(text) == text.num_original_tokens:
            return None
        return TruncationReport(text.num_original_tokens, len(text), self.truncation)


def tokenization_options(
    tokenizer: TextTokenizer,
    max_tokens: int,
    truncation: int,
    before: Sequence[Token] = (),
    after: Sequence[Token] = (),
    prompt_length: int = 0,
    text_codes: Collection[int] = (),
) -> TokenizationOptions:
    """The options of texts with a limit; raises InvalidRequest.

    ``truncation`` is a number of `Truncation`, 0 for the default.
    """
    return TokenizationOptions(
        tokenizer,
        max_tokens,
        known_value("truncation", truncation, Truncation.REFUSE),
        before=before,
        after=after,
        prompt_length=prompt_length,
        text_codes=text_codes,
    )


async def tokenize(
    jobs: JobRunner, options: TokenizationOptions, field: str, texts: Sequence[str | TextPair]
) -> list[TokenizedOrError]:
    """The tokens, or the fault, of each text, counted for the quotas of the caller.

    Raises InvalidRequest for too many tokens in total, or QuotaExceeded. A pair of texts that are
    tokenized one after the other counts as one text.

    ``field`` is the name of a text in faults; ``{}`` in it stands for the text's number.
    """
    record, usage = records.current(), current_usage()
    if record.tokenization_started is None:
        usage.take_texts(len(texts))
        record.tokenization_started = time.monotonic()
    is_short = sum(map(len, texts)) <= MAX_INLINE_CHARACTERS
    results: list[TokenizedOrError] = []
    for job in _jobs(texts):
        run = partial(_tokenize_all, options, field, job, len(results), is_short)
        results += run() if is_short else await jobs.run(run)
        _check_total(options, results)
    usage.take_tokens(num_tokens(results))
    _add_to_record(record, results)
    return results


def good(texts: Iterable[Text | InvalidRequest]) -> Iterator[Text]:
    """The texts without a fault, in order."""
    return (text for text in texts if not isinstance(text, InvalidRequest))


def merged(
    texts: Iterable[Text | InvalidRequest],
    results: Iterable[Result],
    build: Callable[[Text, Result], Entry],
) -> list[Entry | InvalidRequest]:
    """The texts with their results, combined by ``build``; a text with a fault has no result."""
    remaining = iter(results)
    return [
        text if isinstance(text, InvalidRequest) else build(text, next(remaining)) for text in texts
    ]


def num_tokens(texts: Iterable[TokenizedOrError]) -> int:
    """Number of tokens in all texts without a fault."""
    return sum(len(text) for text in good(texts))


def _add_to_record(record: CallRecord, results: Sequence[TokenizedOrError]) -> None:
    record.tokenization_ended = time.monotonic()
    record.num_texts += len(results)
    for text in results:
        if isinstance(text, InvalidRequest):
            record.num_invalid_texts += 1
        else:
            record.num_input_tokens += len(text)
            record.num_truncated_texts += len(text) < text.num_original_tokens


def _jobs(texts: Iterable[str | TextPair]) -> Iterator[list[str | TextPair]]:
    job: list[str | TextPair] = []
    num_characters = 0
    for text in texts:
        if job and num_characters + len(text) > MAX_JOB_CHARACTERS:
            yield job
            job, num_characters = [], 0
        job.append(text)
        num_characters += len(text)
    yield job


def _tokenize_all(
    options: TokenizationOptions,
    field: str,
    texts: Sequence[str | TextPair],
    first: int,
    one_by_one: bool,
) -> list[TokenizedOrError]:
    """Tokenize the texts from number ``first`` on.

    ``one_by_one`` is quicker for few short texts, but holds the interpreter lock all the time.
    """
    plain = [text if isinstance(text, str) else (text.first, text.second) for text in texts]
    tokenizer = options.tokenizer
    encoded = map(tokenizer.encode_or_error, plain) if one_by_one else tokenizer.encode_all(plain)
    return [
        _checked(options, field, tokens, number)
        if isinstance(text, str)
        else _checked_pair(options, field, tokens, number)
        for number, (text, tokens) in enumerate(zip(texts, encoded, strict=True), first)
    ]


def _check_total(options: TokenizationOptions, results: Sequence[TokenizedOrError]) -> None:
    if options.max_total_tokens is None:
        return
    if num_tokens(results) > options.max_total_tokens:
        raise InvalidRequest("texts", f"at most {options.max_total_tokens} tokens in one call")


def _checked(
    options: TokenizationOptions, field: str, tokens: TokenizedText | TokenizerError, number: int
) -> TokenizedOrError:
    """The tokens of a text within the limits, or its fault."""
    if isinstance(tokens, TokenizerError):
        return InvalidRequest(field.format(number), "cannot be tokenized")
    before, prompt_length = options.before, options.prompt_length
    if options.text_codes and not tokens.is_empty:
        first_id = tokens.first_id
        if problem := _code_problem(options, first_id):
            return InvalidRequest(field.format(number), problem)
        if first_id in options.text_codes:
            # The text has the code itself, and truncation keeps it like a prompt.
            before, prompt_length = _without_code(before, options.text_codes), tokens.first_end
    if before or options.after:
        tokens = tokens.between(before, options.after)
    if options.max_tokens is None:
        return tokens
    if tokens.is_empty_after(prompt_length):
        return InvalidRequest(field.format(number), EMPTY)
    if len(tokens) <= options.max_tokens:
        return tokens
    if options.truncation is Truncation.RIGHT:
        tokens = tokens.cut_end(options.max_tokens)
    elif options.truncation is Truncation.LEFT:
        tokens = tokens.cut_beginning(options.max_tokens, prompt_length)
    if len(tokens) <= options.max_tokens:
        return tokens
    return _too_long(options, field, number, tokens)


def _checked_pair(
    options: TokenizationOptions, field: str, tokens: TokenizedText | TokenizerError, number: int
) -> TokenizedOrError:
    """The tokens of a pair within the limits, or its fault."""
    if isinstance(tokens, TokenizerError):
        return InvalidRequest(field.format(number), "cannot be tokenized")
    for side, name in enumerate((field, SECOND_TEXTS)):
        if not tokens.has_text(side):
            return InvalidRequest(name.format(number), EMPTY)
    max_tokens, truncation = options.max_tokens, options.truncation
    if max_tokens is None or len(tokens) <= max_tokens:
        return tokens
    if truncation is not Truncation.REFUSE:
        cut = tokens.cut_pair(max_tokens, keeps_end=truncation is Truncation.LEFT)
        if len(cut) <= max_tokens and cut.has_text(0) and cut.has_text(1):
            return cut
    return _too_long(options, field, number, tokens)


def _too_long(
    options: TokenizationOptions, field: str, number: int, tokens: TokenizedText
) -> InvalidRequest:
    problem = f"at most {options.max_tokens} tokens, got {len(tokens)}"
    return InvalidRequest(field.format(number), problem)


def _code_problem(options: TokenizationOptions, first_id: int) -> str | None:
    """The problem of a text with this first token, if it does not choose one target language."""
    codes = options.text_codes
    chosen = [token for token in options.before[-1:] if token.id in codes]
    if first_id not in codes and not chosen:
        (example,) = options.tokenizer.tokens([min(codes)])
        problem = f"must begin with the code of a language, such as {example}, unless "
        return f"{problem}target_language names a language with a code"
    if chosen and chosen[0].id != first_id:
        (found,) = options.tokenizer.tokens([first_id])
        if LANGUAGE_CODE.fullmatch(found):  # also one that the bundle leaves out
            return f"begins with {found}, but the target language has the code {chosen[0].text}"
    return None


def _without_code(before: Sequence[Token], codes: Collection[int]) -> Sequence[Token]:
    return before[:-1] if before and before[-1].id in codes else before
