"""What a server does when caches grow, when memory runs out, and when callers cancel."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

import grpc
from attendant.v1 import translation_pb2 as pb
from attendant.v1.translation_pb2_grpc import TranslationServiceStub
from attendant_client import CallError, Client

from bench.gpu.trial import Figures, Trial
from bench.servers import RunningServer, running_server

CACHES, NEEDED, ROWS = (
    f"attendant_{name}" for name in ("cache_bytes", "cache_needed_bytes", "rows_used")
)
DEVICE_MEMORY = "attendant_device_memory_used_bytes"
TIMEOUT_SECONDS = 60
RELEASE_SECONDS = 15.0
"""Limit of the wait for an idle server to release its caches, which it does after 10 s."""
FREE_SECONDS = 5.0
"""Limit of the wait for rows to be free after their calls have ended."""
PROBE = "badi gabe keru nolo"


def measure_caches(
    server: RunningServer, texts: Sequence[str], num_callers: int, release_seconds: float
) -> Figures:
    """The caches before a load, at their largest, and after it; and the memory of the card.

    Waits for at most ``release_seconds`` until the caches are released.
    """
    before, device_before = server.total(CACHES), server.total(DEVICE_MEMORY)
    with (
        Client(server.target) as client,
        _watched(server, CACHES) as seen,
        ThreadPoolExecutor(num_callers) as callers,
    ):
        answers = list(callers.map(client.translate, texts))
    seen.append(server.total(CACHES))
    _wait_until(lambda: server.total(CACHES) == 0, release_seconds)
    return {
        "num_failed": sum(each.error is not None for each in answers),
        "before": before,
        "largest_seen": max(seen),
        "after": server.total(CACHES),
        "needed_after": server.total(NEEDED),
        "device_memory_before": device_before,
        "device_memory_after": server.total(DEVICE_MEMORY),
    }


def measure_cancelled_calls(
    server: RunningServer, texts: Sequence[str], num_callers: int
) -> Figures:
    """Cancel every other call while it runs; count other answers that change, and rows in use."""
    kept, given_up = texts[:num_callers:2], texts[1:num_callers:2]
    with grpc.insecure_channel(server.target) as channel:
        stub = TranslationServiceStub(channel)
        alone = [_text_of(stub.Translate(_request(text))) for text in kept]
        calls = [stub.Translate.future(_request(text), TIMEOUT_SECONDS) for text in kept]
        leaving = [stub.Translate.future(_request(text), TIMEOUT_SECONDS) for text in given_up]
        _wait_until(
            lambda: server.total(ROWS) > 0 or all(call.done() for call in calls), FREE_SECONDS
        )
        num_cancelled = sum(call.cancel() for call in leaving)
        together = [_text_of(call.result()) for call in calls]
    _wait_until(lambda: server.total(ROWS) == 0, FREE_SECONDS)
    return {
        "num_cancelled": num_cancelled,
        "num_answered": len(together),
        "num_different": sum(map(str.__ne__, alone, together)),
        "rows_used_after": server.total(ROWS),
    }


def measure_end_of_memory(
    trial: Trial, flags: Sequence[str], texts: Sequence[str], num_callers: int
) -> Figures:
    """Flood a server that has less memory on the card than its caches may take.

    Counts the texts that are answered, and those that fail by their status. Tells whether a later
    text gets the same answer as before.
    """
    # The limits are for a Transformer base: the weights of all graphs fit, full caches do not.
    limits = ("--max-device-memory-bytes=1200000000", "--max-cache-bytes=8000000000")
    with running_server(*flags, *limits) as server, Client(server.target) as client:

        def outcome(text: str) -> str:
            try:
                found = client.translate(text, timeout_seconds=TIMEOUT_SECONDS)
            except CallError as error:
                return error.code.name
            return "answered" if found.error is None else found.error.code.name

        before = client.translate(PROBE).text
        with ThreadPoolExecutor(num_callers) as callers:
            outcomes = Counter(callers.map(outcome, texts))
        after = client.translate(PROBE).raise_for_errors().text
        memory = server.total(DEVICE_MEMORY)
    return {
        "outcomes": dict(outcomes),
        "is_same_afterwards": before == after,
        "device_memory_used": memory,
    }


def _request(text: str) -> pb.TranslateRequest:
    return pb.TranslateRequest(texts=[text])


def _text_of(response: pb.TranslateResponse) -> str:
    return response.translations[0].hypotheses[0].text


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until ``condition()`` is true, for at most ``seconds``."""
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.02)


@contextmanager
def _watched(server: RunningServer, metric: str) -> Iterator[list[float]]:
    """A list to which the values of a metric are appended while the block runs."""
    seen: list[float] = []
    has_ended = Event()

    def watch() -> None:
        while not has_ended.wait(0.02):
            seen.append(server.total(metric))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        has_ended.set()
        thread.join()
