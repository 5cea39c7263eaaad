"""Tokenization of a call's texts, within limits; long texts off the event loop."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from attendant_server import records
from attendant_server.application.held_memory import current_hold
from attendant_server.application.jobs import JobRunner
from attendant_server.application.quotas import current_usage
from attendant_server.application.tokenization_options import (
    CountedTokens,
    TextPair,
    TokenizationOptions,
    Truncation,
)
from attendant_server.errors import CallTooLarge, InvalidRequest
from attendant_server.records import CallRecord
from attendant_server.tokenized_text import WORD_START, Token, TokenizedText
from attendant_server.tokenizer import TextTokenizer, TokenizerError

MAX_INLINE_CHARACTERS = 1000
"""Characters that take about a millisecond to tokenize. For fewer, a thread switch costs more than
it saves."""
MAX_JOB_CHARACTERS = 10_000
"""Long calls are split into jobs, so that other calls run in between and cancelling is quick."""

CHARACTERS_PER_TOKEN = 2
"""Fewer than in most texts: memory for tokens is taken before they are counted."""
TokenizedOrError: TypeAlias = TokenizedText | InvalidRequest
LANGUAGE_CODE = re.compile(r">>[^<]+<<")
"""A token before a text that chooses the target language."""
EMPTY = "is empty, or has nothing that the model can read"
UNKNOWN = "has nothing that the vocabulary of the model knows"
Text = TypeVar("Text")
Source = TypeVar("Source", bound="str | TextPair", contravariant=True)
Tokens = TypeVar("Tokens", bound=CountedTokens)
Result = TypeVar("Result")
Entry = TypeVar("Entry")


class Reader(Protocol[Source, Tokens]):
    """Reads a part of a call's texts."""

    def __call__(
        self,
        options: TokenizationOptions,
        field: str,
        texts: Sequence[Source],
        first: int,
        one_by_one: bool,
    ) -> list[Tokens | InvalidRequest]:
        """The tokens or the fault of each text.

        ``field`` is the name of a text in faults; ``{}`` in it stands for the text's number, which
        is ``first`` for the first one. ``one_by_one`` is quicker for few short texts, but holds the
        interpreter lock all the time.
        """


async def tokenize(
    jobs: JobRunner, options: TokenizationOptions, field: str, texts: Sequence[str | TextPair]
) -> list[TokenizedOrError]:
    """The tokens, or the fault, of each text; like `read_texts`."""
    return await read_texts(jobs, options, field, texts, tokenize_all)


async def read_texts(
    jobs: JobRunner,
    options: TokenizationOptions,
    field: str,
    texts: Sequence[Source],
    read: Reader[Source, Tokens],
) -> list[Tokens | InvalidRequest]:
    """What ``read`` makes of each text, or its fault, counted for the quotas of the caller.

    Raises CallTooLarge for too many tokens in total, QuotaExceeded, or QueueFull if the server has
    no room for the tokens of long texts. A pair of texts that are tokenized one after the other
    counts as one text.
    """
    record, usage = records.current(), current_usage()
    if record.tokenization_started is None:
        usage.take_texts(len(texts))
        record.tokenization_started = time.monotonic()
    if sum(map(len, texts)) <= MAX_INLINE_CHARACTERS:
        results = read(options, field, texts, 0, True)
        _check_total(options, results)
    else:
        results = await _read_long(jobs, options, field, texts, read)
    usage.take_tokens(num_tokens(results))
    _add_to_record(record, results)
    return results


async def _read_long(
    jobs: JobRunner,
    options: TokenizationOptions,
    field: str,
    texts: Sequence[Source],
    read: Reader[Source, Tokens],
) -> list[Tokens | InvalidRequest]:
    """Read texts in several jobs, and count the memory of their tokens.

    Memory is taken for all texts at first, so that calls without room are refused before any work,
    and those that have begun end.
    """
    results: list[Tokens | InvalidRequest] = []
    held, num_held, num_found = current_hold(), sum(map(len, texts)) // CHARACTERS_PER_TOKEN, 0
    held.hold_tokens(num_held)
    for job in split_into_jobs(texts):
        found = await jobs.run(partial(read, options, field, job, len(results), False))
        results += found
        _check_total(options, results)
        num_found += sum(text.num_original_tokens for text in good(found))
        held.hold_tokens(max(0, num_found - num_held))
        num_held = max(num_held, num_found)
    held.hold_tokens(num_found - num_held)
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


def num_tokens(texts: Iterable[CountedTokens | InvalidRequest]) -> int:
    """Number of tokens in all texts without a fault."""
    return sum(len(text) for text in good(texts))


def _add_to_record(record: CallRecord, results: Sequence[CountedTokens | InvalidRequest]) -> None:
    record.tokenization_ended = time.monotonic()
    record.num_texts += len(results)
    for text in results:
        if isinstance(text, InvalidRequest):
            record.num_invalid_texts += 1
        else:
            record.num_input_tokens += len(text)
            record.num_truncated_texts += len(text) < text.num_original_tokens


def split_into_jobs(texts: Iterable[Source]) -> Iterator[list[Source]]:
    """The texts in parts of up to `MAX_JOB_CHARACTERS`, or of one text."""
    job: list[Source] = []
    num_characters = 0
    for text in texts:
        if job and num_characters + len(text) > MAX_JOB_CHARACTERS:
            yield job
            job, num_characters = [], 0
        job.append(text)
        num_characters += len(text)
    yield job


def tokenize_all(
    options: TokenizationOptions,
    field: str,
    texts: Sequence[str | TextPair],
    first: int,
    one_by_one: bool,
) -> list[TokenizedOrError]:
    """The tokens of each text or pair within the limits, or its fault; a `Reader`."""
    results = [_length_fault(options, field, text, i) for i, text in enumerate(texts, first)]
    good = [text for text, fault in zip(texts, results, strict=True) if fault is None]
    tokens = iter(encode_all(options, good, one_by_one))
    return [
        _limited_or_fault(options, field, text, next(tokens), number) if fault is None else fault
        for number, (text, fault) in enumerate(zip(texts, results, strict=True), first)
    ]


def encode_all(
    options: TokenizationOptions, texts: Sequence[str | TextPair], one_by_one: bool
) -> Iterable[TokenizedText | TokenizerError]:
    """All tokens of each text or pair, or the error of the tokenizer."""
    plain = [text if isinstance(text, str) else (text.first, text.second) for text in texts]
    if one_by_one:
        tokenizer, normalizes = options.tokenizer, options.normalizes
        return (tokenizer.encode_or_error(text, normalizes) for text in plain)
    return options.tokenizer.encode_all(plain, options.normalizes)


def _length_fault(
    options: TokenizationOptions, field: str, text: str | TextPair, number: int
) -> InvalidRequest | None:
    if isinstance(text, str):
        sides = [(field, len(text) - options.prompt_length)]
    else:
        sides = [(field, len(text.first)), (options.second_field, len(text.second))]
    for name, length in sides:
        if problem := length_problem(options, length):
            return InvalidRequest(name.format(number), problem)
    return None


def _check_total(
    options: TokenizationOptions, results: Sequence[CountedTokens | InvalidRequest]
) -> None:
    if options.max_total_tokens is None:
        return
    if num_tokens(results) > options.max_total_tokens:
        raise CallTooLarge("texts", f"at most {options.max_total_tokens} tokens in one call")


def _limited_or_fault(
    options: TokenizationOptions,
    field: str,
    text: str | TextPair,
    tokens: TokenizedText | TokenizerError,
    number: int,
) -> TokenizedOrError:
    try:
        if isinstance(text, TextPair):
            return _limited_pair(options, field, number, readable(tokens, field, number))
        whole, prompt_length = with_language(options, field, tokens, number)
        return limited(options, field, number, whole, prompt_length)
    except InvalidRequest as fault:
        return fault


def readable(tokens: TokenizedText | TokenizerError, field: str, number: int) -> TokenizedText:
    """The tokens; raises InvalidRequest if the tokenizer failed."""
    if isinstance(tokens, TokenizerError):
        raise InvalidRequest(field.format(number), "cannot be tokenized")
    return tokens


def with_language(
    options: TokenizationOptions, field: str, found: TokenizedText | TokenizerError, number: int
) -> tuple[TokenizedText, int]:
    """A text with the tokens of its languages and controls, and the length of its prompt.

    Raises InvalidRequest if the text cannot be tokenized, or does not choose one language.
    """
    tokens = readable(found, field, number)
    before, prompt_length = options.before, options.prompt_length
    after_code: Sequence[Token] = ()
    if options.text_codes and not tokens.is_empty:
        first_id = tokens.first_id
        if problem := _code_problem(options, first_id):
            raise InvalidRequest(field.format(number), problem)
        if first_id in options.text_codes:
            # The text has the code itself, and truncation keeps it like a prompt.
            before, prompt_length = _without_code(before, options.text_codes), tokens.first_end
            after_code = options.before_text
    if options.before_text and not after_code:
        before = (*before, *options.before_text)
    if before or after_code or options.after:
        tokens = tokens.between(before, options.after, after_code)
    return tokens, prompt_length


def limited(
    options: TokenizationOptions, field: str, number: int, tokens: TokenizedText, prompt_length: int
) -> TokenizedText:
    """Tokens within the limits of the options, truncated if they say so; raises InvalidRequest."""
    if options.max_tokens is None:
        return tokens
    if tokens.is_empty_after(prompt_length) and not options.allows_empty:
        raise InvalidRequest(field.format(number), EMPTY)
    if options.normalizes and _is_unknown(options.tokenizer, tokens, prompt_length):
        raise InvalidRequest(field.format(number), UNKNOWN)
    if len(tokens) <= options.max_tokens:
        filler = options.filler
        return tokens if filler is None else tokens.filled(filler, options.max_tokens)
    if options.truncation is Truncation.RIGHT:
        whole, tokens = tokens, tokens.cut_end(options.max_tokens)
        if prompt_length and tokens.is_empty_after(prompt_length):
            raise too_long(options, field, number, whole)
    elif options.truncation is Truncation.LEFT:
        tokens = tokens.cut_beginning(options.max_tokens, prompt_length)
    if len(tokens) <= options.max_tokens:
        return tokens
    raise too_long(options, field, number, tokens)


def _limited_pair(
    options: TokenizationOptions, field: str, number: int, tokens: TokenizedText
) -> TokenizedText:
    """Like `limited`, for a pair."""
    for side, name in enumerate((field, options.second_field)):
        if not tokens.has_text(side):
            raise InvalidRequest(name.format(number), EMPTY)
    max_tokens, truncation = options.max_tokens, options.truncation
    if max_tokens is None or len(tokens) <= max_tokens:
        return tokens
    if truncation is not Truncation.REFUSE:
        cut = tokens.cut_pair(max_tokens, keeps_end=truncation is Truncation.LEFT)
        if len(cut) <= max_tokens and cut.has_text(0) and cut.has_text(1):
            return cut
    raise too_long(options, field, number, tokens)


def _is_unknown(tokenizer: TextTokenizer, tokens: TokenizedText, prompt_length: int) -> bool:
    """Whether a text, after its prompt, has unknown tokens only."""
    if not tokenizer.num_unknown(tokens.token_ids):
        return False
    return all(
        tokenizer.num_unknown([token.id]) or not token.text.strip(WORD_START)
        for token in tokens
        if not token.is_special and token.end > prompt_length
    )


def length_problem(options: TokenizationOptions, num_characters: int) -> str | None:
    """The problem of a text with too many characters."""
    if num_characters <= options.max_characters:
        return None
    return f"at most {options.max_characters} characters, got {num_characters}"


def too_long(
    options: TokenizationOptions, field: str, number: int, tokens: TokenizedText
) -> InvalidRequest:
    """The fault of a text with more tokens than the options allow."""
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
