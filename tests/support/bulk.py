"""Raw bulk calls, whose requests are sent when the test says so."""

import queue
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from attendant.v1 import embedding_pb2, text_pb2, translation_pb2

from tests.support.serving import TIMEOUT_SECONDS, Running

WORDS = ("the dog sees the king", "a cat", "the king", "the bird sees a dog and a cat")
TEXTS = [(str(i), f"{WORDS[i % len(WORDS)]} {i % 7}") for i in range(600)]
"""Pairs of an id and a text for the tiny translation model."""
READS_NOTHING_UNASKED = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
"""Options of a client that leaves messages on the server until it reads them."""


@dataclass(frozen=True, slots=True)
class OneResult:
    """The result of one text in a response of a bulk call."""

    id: str
    result: Any
    """The Translation, or the EmbedResult."""
    answer: Any
    """The TranslateResponse or EmbedResponse that it came in."""


def each_result(responses: Iterable[Any]) -> Iterator[OneResult]:
    """The results in responses, which have an id for each."""
    for response in responses:
        answer = response.answer
        results = getattr(answer, "translations" if hasattr(answer, "translations") else "results")
        for text_id, result in zip(response.ids, results, strict=True):
            yield OneResult(text_id, result, answer)


def bulk_texts(*pairs: tuple[str, str]) -> list[text_pb2.BulkText]:
    """Texts with their ids."""
    return [text_pb2.BulkText(id=text_id, text=text) for text_id, text in pairs]


def translate_requests(
    pairs: Iterable[tuple[str, str]] = (), together: int = 1, **settings: Any
) -> Iterator[Any]:
    """The messages for pairs of id and text; ``settings`` are fields of TranslateRequest.

    ``together`` is the number of texts in a message.
    """
    request = translation_pb2.TranslateRequest(**settings)
    yield translation_pb2.BulkTranslateRequest(settings=request)
    for part in batched(pairs, together):
        yield translation_pb2.BulkTranslateRequest(texts=bulk_texts(*part))


def translate_text(text_id: str, text: str) -> translation_pb2.BulkTranslateRequest:
    """The message of one text."""
    return translation_pb2.BulkTranslateRequest(texts=bulk_texts((text_id, text)))


def embed_requests(
    pairs: Iterable[tuple[str, str]] = (), together: int = 1, **settings: Any
) -> Iterator[Any]:
    """Like `translate_requests`; ``settings`` are fields of EmbedRequest."""
    yield embedding_pb2.BulkEmbedRequest(settings=embedding_pb2.EmbedRequest(**settings))
    for part in batched(pairs, together):
        yield embedding_pb2.BulkEmbedRequest(texts=bulk_texts(*part))


def batched(pairs: Iterable[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    """Lists of ``size`` pairs, of which the last one may be shorter."""
    remaining = iter(pairs)
    while batch := list(islice(remaining, size)):
        yield batch


class Sender:
    """Requests of a call that go on until the test ends them; counts those that were taken."""

    def __init__(self, requests: Iterable[Any] = ()) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.num_taken = 0
        self.send(*requests)

    def send(self, *requests: Any) -> None:
        """Send further requests."""
        for request in requests:
            self._requests.put(request)

    def end(self) -> None:
        """End the requests."""
        self._requests.put(None)

    def __iter__(self) -> Iterator[Any]:
        while (request := self._requests.get(timeout=TIMEOUT_SECONDS)) is not None:
            self.num_taken += 1
            yield request


def num_unanswered(running: Running) -> int:
    """Texts that all streams of a server have read and not answered."""
    calls = running.server._tracker._calls.copy()
    return sum(call.record.num_unanswered_texts for call in calls)


def bulk_translate(running: Running, requests: Any, **options: Any) -> Any:
    """A BulkTranslate call in progress."""
    options = {"timeout": TIMEOUT_SECONDS} | options
    return running.translation.BulkTranslate(iter(requests), **options)


def translations(running: Running, texts: list[str], **fields: Any) -> Any:
    """The translations of Translate, by distinct texts."""
    request = translation_pb2.TranslateRequest(texts=texts, **fields)
    return running.translation.Translate(request, timeout=TIMEOUT_SECONDS).translations
