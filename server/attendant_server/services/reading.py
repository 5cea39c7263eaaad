"""Texts of a call to tokens and tokens to answers, within limits; long ones off the event loop."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from attendant.v1 import text_pb2

from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer, TokenizedText, TokenizerError

MAX_INLINE_CHARACTERS = 1000
"""About a millisecond of tokenization; a thread switch would cost more than it frees."""
MAX_INLINE_TOKENS = 300
"""About a millisecond of building an answer."""
MAX_JOB_CHARACTERS = 10_000
"""Long calls are cut into jobs, so that others come in between and a cancelled one ends soon."""

Truncation: TypeAlias = text_pb2.Truncation.ValueType
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Reading:
    """How texts are to be read."""

    tokenizer: TextTokenizer
    max_tokens: int | None
    """Most tokens of one text, special tokens included; None: any number, and none as well."""
    truncation: Truncation = text_pb2.TRUNCATION_REFUSE
    max_total_tokens: int | None = None
    """Most tokens of the whole call."""


class TextReader:
    """Reads texts and builds answers; long ones on the threads of ``pool``."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    async def read(
        self, reading: Reading, fields_and_texts: Sequence[tuple[str, str]]
    ) -> list[TokenizedText | InvalidRequest]:
        """The tokens, or the fault, of each text; raises InvalidRequest for too many in all."""
        is_short = sum(len(text) for _, text in fields_and_texts) <= MAX_INLINE_CHARACTERS
        results: list[TokenizedText | InvalidRequest] = []
        for job in _jobs(fields_and_texts):
            read = partial(_read_all, reading, job)
            results += read() if is_short else await self._run(read)
            _check_total(reading, results)
        return results

    async def build(self, num_tokens: int, work: Callable[[], Value]) -> Value:
        """Build an answer that has about ``num_tokens`` tokens, or as many candidates."""
        return work() if num_tokens <= MAX_INLINE_TOKENS else await self._run(work)

    async def _run(self, work: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def truncation_report(
    text: TokenizedText, truncation: Truncation
) -> text_pb2.TruncationReport | None:
    """What was dropped from a text; None when nothing was."""
    if len(text) == text.num_original_tokens:
        return None
    return text_pb2.TruncationReport(
        num_original_tokens=text.num_original_tokens,
        num_kept_tokens=len(text),
        truncation=truncation,
    )


def _jobs(fields_and_texts: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    job: list[tuple[str, str]] = []
    num_characters = 0
    for field, text in fields_and_texts:
        if job and num_characters + len(text) > MAX_JOB_CHARACTERS:
            yield job
            job, num_characters = [], 0
        job.append((field, text))
        num_characters += len(text)
    yield job


def _read_all(
    reading: Reading, fields_and_texts: Sequence[tuple[str, str]]
) -> list[TokenizedText | InvalidRequest]:
    return [_read(reading, field, text) for field, text in fields_and_texts]


def _check_total(reading: Reading, results: Sequence[TokenizedText | InvalidRequest]) -> None:
    num_tokens = sum(len(r) for r in results if not isinstance(r, InvalidRequest))
    if reading.max_total_tokens is not None and num_tokens > reading.max_total_tokens:
        raise InvalidRequest("texts", f"at most {reading.max_total_tokens} tokens in one call")


def _read(reading: Reading, field: str, text: str) -> TokenizedText | InvalidRequest:
    try:
        tokens = reading.tokenizer.encode(text)
    except TokenizerError:
        return InvalidRequest(field, "cannot be cut into tokens")
    if reading.max_tokens is None:
        return tokens
    if tokens.is_empty:
        return InvalidRequest(field, "is empty, or has nothing that the model can read")
    return _within(reading, reading.max_tokens, field, tokens)


def _within(
    reading: Reading, max_tokens: int, field: str, tokens: TokenizedText
) -> TokenizedText | InvalidRequest:
    if len(tokens) <= max_tokens:
        return tokens
    if reading.truncation == text_pb2.TRUNCATION_RIGHT:
        return tokens.cut_end(max_tokens)
    if reading.truncation == text_pb2.TRUNCATION_LEFT:
        return tokens.cut_beginning(max_tokens)
    return InvalidRequest(field, f"at most {max_tokens} tokens, got {len(tokens)}")
