"""Real servers for tests, in this process on free ports, and ways to pause their engine."""

import asyncio
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import uvloop
from attendant.v1 import (
    embedding_pb2_grpc,
    language_model_pb2_grpc,
    model_pb2_grpc,
    translation_pb2_grpc,
)
from attendant_server.app import Server
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.settings import Settings
from grpc_health.v1 import health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS = 60.0
TRANSLATION_MODEL = "tiny-en-de/1"
A_SOURCE = (5, 6, 2)
"""Token ids of a source for the tiny translation model, ending with EOS, 2."""


class LoopThread:
    """An event loop in a thread of its own, which runs all servers of the tests."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.submit(work).result(TIMEOUT_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Running:
    """A serving server, and a channel to it."""

    server: Server
    loop: LoopThread
    channel: Any

    def __post_init__(self) -> None:
        self.translation: Any = translation_pb2_grpc.TranslationServiceStub(self.channel)
        self.embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(self.channel)
        self.language: Any = language_model_pb2_grpc.LanguageModelServiceStub(self.channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples ``name`` with these labels; ``model`` is ``name/version``."""
        if "model" in labels:
            labels["model"], labels["version"] = labels["model"].split("/")
        return sum_of_metric(metrics_page(self.server), name, **labels)

    @contextmanager
    def held_engine(self) -> Iterator[None]:
        """Keep the engine busy with one step of a call of its own while the block runs."""
        held, release = threading.Event(), threading.Event()

        def hold(_: tuple[int, ...]) -> None:
            held.set()
            release.wait(TIMEOUT_SECONDS)

        call = self.submit(hold)
        assert held.wait(TIMEOUT_SECONDS)
        try:
            yield
        finally:
            release.set()
            call.future.exception(TIMEOUT_SECONDS)

    def submit(self, on_prefix: Callable[[tuple[int, ...]], None]) -> TranslateCall:
        """Submit a call directly to the engine."""
        assert self.server.engine is not None
        options = SearchOptions(max_output_tokens=2, min_output_tokens=1)
        call = TranslateCall([A_SOURCE], options, on_prefix=on_prefix)
        self.server.engine.submit(TRANSLATION_MODEL, call)
        return call

    def wait_for_queued(self, num_texts: int, model: str = TRANSLATION_MODEL) -> None:
        """Wait until a model has the given number of queued texts."""
        wait_until(lambda: self.metric("attendant_queued_texts", model=model) == num_texts)


@contextmanager
def running_server(loop: LoopThread, settings: Settings) -> Iterator[Running]:
    """A server with all models loaded, stopped after the block."""
    server = Server(settings)
    loop.run(server.__aenter__())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Running(server, loop, channel)
    finally:
        loop.run(server.stop())


def metrics_page(server: Server, accept: str = "") -> str:
    """The answer of ``/metrics`` to a reader that accepts the given types."""
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        return str(response.read().decode())


def sum_of_metric(page: str, name: str, **labels: str) -> float:
    """The sum of the samples ``name`` with these labels."""
    families = list(text_string_to_metric_families(page))
    samples = [s for family in families for s in family.samples if s.name == name]
    assert samples, f"there is no metric {name}"
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def failure_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The error of a call that must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        call(*arguments, **options)
    return failure.value


def wait_until(is_true: Callable[[], bool]) -> None:
    """Poll a condition that has no event to wait for."""
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert time.monotonic() < give_up, "it never came true"
        time.sleep(0.005)
