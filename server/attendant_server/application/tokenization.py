"""Texts of a call to tokens and tokens to answers, within limits; long ones off the event loop."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from attendant.v1 import text_pb2

from attendant_server import records
from attendant_server.errors import InvalidRequest
from attendant_server.records import CallRecord
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
class TokenizationOptions:
    """How texts are to be read."""

    tokenizer: TextTokenizer
    max_tokens: int | None
    """Most tokens of one text, special tokens included; None: any number, and none as well."""
    truncation: Truncation = text_pb2.TRUNCATION_REFUSE
    max_total_tokens: int | None = None
    """Most tokens of the whole call."""


class TokenizationRunner:
    """Reads texts and builds answers; long ones on the threads of ``pool``."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    async def tokenize(
        self, tokenization: TokenizationOptions, field: str, texts: Sequence[str]
    ) -> list[TokenizedText | InvalidRequest]:
        """The tokens, or the fault, of each text; raises InvalidRequest for too many in all.

        Faults call a text ``field``, in which ``{}`` stands for its number.
        """
        record = records.current()
        if record.tokenization_started is None:
            record.tokenization_started = time.monotonic()
        is_short = sum(map(len, texts)) <= MAX_INLINE_CHARACTERS
        results: list[TokenizedText | InvalidRequest] = []
        for job in _jobs(texts):
            run = partial(_tokenize_all, tokenization, field, job, len(results))
            results += run() if is_short else await self._run(run)
            _check_total(tokenization, results)
        _note(record, results)
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


def _note(record: CallRecord, results: Sequence[TokenizedText | InvalidRequest]) -> None:
    record.tokenization_ended = time.monotonic()
    record.num_texts += len(results)
    for text in results:
        if isinstance(text, InvalidRequest):
            record.num_invalid_texts += 1
        else:
            record.num_input_tokens += len(text)
            record.num_truncated_texts += len(text) < text.num_original_tokens


def _jobs(texts: Iterable[str]) -> Iterator[list[str]]:
    job: list[str] = []
    num_characters = 0
    for text in texts:
        if job and num_characters + len(text) > MAX_JOB_CHARACTERS:
            yield job
            job, num_characters = [], 0
        job.append(text)
        num_characters += len(text)
    yield job


def _tokenize_all(
    tokenization: TokenizationOptions, field: str, texts: Sequence[str], first: int
) -> list[TokenizedText | InvalidRequest]:
    return [
        _tokenize(tokenization, field, text, number) for number, text in enumerate(texts, first)
    ]


def _check_total(
    tokenization: TokenizationOptions, results: Sequence[TokenizedText | InvalidRequest]
) -> None:
    num_tokens = sum(len(r) for r in results if not isinstance(r, InvalidRequest))
    if tokenization.max_total_tokens is not None and num_tokens > tokenization.max_total_tokens:
        raise InvalidRequest("texts", f"at most {tokenization.max_total_tokens} tokens in one call")


def _tokenize(
    tokenization: TokenizationOptions, field: str, text: str, number: int
) -> TokenizedText | InvalidRequest:
    try:
        tokens = tokenization.tokenizer.encode(text)
    except TokenizerError:
        return InvalidRequest(field.format(number), "cannot be cut into tokens")
    if tokenization.max_tokens is None:
        return tokens
    if tokens.is_empty:
        problem = "is empty, or has nothing that the model can read"
        return InvalidRequest(field.format(number), problem)
    if len(tokens) <= tokenization.max_tokens:
        return tokens
    if tokenization.truncation == text_pb2.TRUNCATION_RIGHT:
        return tokens.cut_end(tokenization.max_tokens)
    if tokenization.truncation == text_pb2.TRUNCATION_LEFT:
        return tokens.cut_beginning(tokenization.max_tokens)
    problem = f"at most {tokenization.max_tokens} tokens, got {len(tokens)}"
    return InvalidRequest(field.format(number), problem)
