"""Ends of bulk calls that are not those of their texts: stopping servers and models that change."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.model_control_pb2 import UnloadModelRequest
from attendant.v1.translation_pb2 import TranslateOptions
from attendant_client import AsyncClient, Client, UnavailableError
from attendant_client.__main__ import main
from attendant_server.app import Server
from attendant_server.settings import Settings

from tests.support.bulk import Sender, num_unanswered, translate_requests, translate_text
from tests.support.processes import port_of, server_process
from tests.support.serving import (
    TIMEOUT_SECONDS,
    TRANSLATION_MODEL,
    LoopThread,
    Running,
    failure_of,
    wait_until,
)
from tests.support.versions import add_version

TEXT = "The dog sees the king."
WITH_TOKENS = TranslateOptions(return_tokens=True)


def begin(running: Running, sender: Sender) -> Any:
    return running.translation.BulkTranslate(iter(sender), timeout=TIMEOUT_SECONDS)


@contextmanager
def stoppable_server(loop: LoopThread, settings: Settings) -> Iterator[Running]:
    """A server that the test itself stops."""
    server = Server(settings)
    loop.run(server.__aenter__())
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Running(server, loop, channel)


def test_a_stopping_server_answers_what_it_has_read_and_reads_no_more(
    loop: LoopThread, settings: Callable[..., Any]
):
    with stoppable_server(loop, settings()) as running:
        sender = Sender(translate_requests([("a", TEXT), ("b", TEXT), ("c", TEXT)]))
        call = begin(running, sender)
        with running.held_engine():
            wait_until(lambda: num_unanswered(running) == 3)
            stopping = loop.submit(running.server.stop())
            wait_until(running.server._admission._is_stopping.is_set)
            sender.send(translate_text("d", TEXT))
            wait_until(lambda: sender.num_taken == 5)
        assert [next(call).ids[0] for _ in range(3)] == ["a", "b", "c"]
        error = failure_of(next, call)
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            "the server is stopping",
        )
        stopping.result(TIMEOUT_SECONDS)


def test_a_stopping_server_does_not_wait_for_a_call_without_texts(
    loop: LoopThread, settings: Callable[..., Any]
):
    with stoppable_server(loop, settings(drain_seconds=3600)) as running:
        sender = Sender(translate_requests([("a", TEXT)]))
        call = begin(running, sender)
        assert next(call).ids == ["a"]
        loop.run(running.server.stop())
        assert failure_of(next, call).code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        )


def test_a_text_that_waits_for_its_quota_does_not_delay_a_stopping_server(
    loop: LoopThread, settings: Callable[..., Any]
):
    limits = settings(drain_seconds=3600, caller_max_texts_per_minute=2)
    with stoppable_server(loop, limits) as running:
        call = begin(running, Sender(translate_requests([(str(i), TEXT) for i in range(9)])))
        assert [next(call).ids[0] for _ in range(2)] == ["0", "1"]
        wait_until(lambda: num_unanswered(running) == 1)
        loop.run(running.server.stop())
        error = failure_of(next, call)
        assert error.details() == "the server is stopping"


@pytest.fixture
def root(tmp_path: Path, translation_bundle: Path, embedding_bundle: Path) -> Path:
    """A folder with version 1 of a translation and of an embedding model."""
    for bundle in (translation_bundle, embedding_bundle):
        add_version(bundle, tmp_path, "1")
    return tmp_path


def unload(running: Running) -> None:
    control: Any = model_control_pb2_grpc.ModelControlServiceStub(running.channel)
    control.UnloadModel(UnloadModelRequest(model=TRANSLATION_MODEL), timeout=TIMEOUT_SECONDS)


def test_an_open_call_does_not_keep_a_model_and_ends_when_it_is_unloaded(
    start: Callable[..., Running], root: Path
):
    running = start(bundles=root, model_control="on")
    sender = Sender(translate_requests([("a", TEXT)]))
    call = begin(running, sender)
    assert next(call).ids == ["a"]
    unload(running)
    sender.send(translate_text("b", TEXT))
    error = failure_of(next, call)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == f"{TRANSLATION_MODEL} has been unloaded"


def test_texts_that_were_read_before_their_model_is_unloaded_are_answered(
    start: Callable[..., Running], root: Path
):
    running = start(bundles=root, model_control="on")
    sender = Sender(translate_requests([(str(i), TEXT) for i in range(20)]))
    call = begin(running, sender)
    with running.held_engine():
        running.wait_for_queued(20)
        unloading = threading.Thread(target=unload, args=[running])
        unloading.start()
        catalog = running.server._catalog
        wait_until(lambda: catalog.ready(TRANSLATION_MODEL) is None)
    assert [next(call).ids[0] for _ in range(20)] == [str(i) for i in range(20)]
    unloading.join()
    sender.send(translate_text("b", TEXT))
    assert failure_of(next, call).code() == grpc.StatusCode.UNAVAILABLE


def test_texts_that_are_read_after_their_model_is_replaced_get_the_new_one(
    start: Callable[..., Running], root: Path, translation_bundle: Path
):
    running = start(bundles=root)
    sender = Sender(translate_requests([("a", TEXT)], options=WITH_TOKENS))
    call = begin(running, sender)
    before = next(call)
    tokens = before.answer.translations[0].hypotheses[0].tokens
    token_ids = sorted({token.id for token in tokens[:-1]})  # without EOS

    def change(manifest: Any) -> None:
        manifest["decoding"]["suppressedTokenIds"] = token_ids

    add_version(translation_bundle, root, "1", change)
    running.loop.run(running.server.lifecycle.refresh())
    sender.send(translate_text("b", TEXT))
    after = next(call)
    sender.end()
    assert after.answer.model == before.answer.model
    assert not {t.id for t in after.answer.translations[0].hypotheses[0].tokens} & set(token_ids)
    assert list(call) == []


def test_a_new_version_of_a_model_does_not_change_the_model_of_a_call(
    start: Callable[..., Running], root: Path, translation_bundle: Path
):
    running = start(bundles=root)
    sender = Sender(translate_requests([("a", TEXT)], model="tiny-en-de"))
    call = begin(running, sender)
    assert next(call).answer.model == TRANSLATION_MODEL
    add_version(translation_bundle, root, "2")
    running.loop.run(running.server.lifecycle.refresh())
    sender.send(translate_text("b", TEXT))
    sender.end()
    assert [response.answer.model for response in call] == [TRANSLATION_MODEL]


TEXTS = [(f"id {i}", f"The dog sees the king {i % 50} times.") for i in range(3000)]


class Feed:
    """Texts of which the last ones come once the test lets them."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def _pause(self, i: int) -> bool:
        return i == 1500

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for i, pair in enumerate(TEXTS):
            if self._pause(i):
                assert self.may_go_on.wait(TIMEOUT_SECONDS)
            yield pair

    async def __aiter__(self) -> AsyncIterator[tuple[str, str]]:
        for i, pair in enumerate(TEXTS):
            if self._pause(i):
                assert await asyncio.to_thread(self.may_go_on.wait, TIMEOUT_SECONDS)
            yield pair


def found(results: Any) -> list[tuple[str, str]]:
    return [(each.id, each.text) for each in results]


def expected(target: str) -> list[tuple[str, str]]:
    """The translations of the texts by single calls."""
    distinct = sorted({text for _, text in TEXTS})
    with Client(target) as client:
        by_text = {t: r.text for t, r in zip(distinct, client.translate(distinct), strict=True)}
    return [(text_id, by_text[text]) for text_id, text in TEXTS]


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL])
def test_a_synchronous_call_goes_on_at_the_other_server(bundles: Path, ends: signal.Signals):
    with server_process(bundles) as first, server_process(bundles) as second:
        ports = port_of(first), port_of(second)
        for process in (first, second):
            assert process.stderr is not None
            threading.Thread(target=process.stderr.read, daemon=True).start()
        wanted = expected(f"127.0.0.1:{ports[1]}")
        with Client(f"127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}") as client:
            feeds = [Feed(), Feed()]  # one call for each server, at least
            calls = [client.bulk_translate(feed) for feed in feeds]
            begun = [found([next(call) for _ in range(10)]) for call in calls]
            first.send_signal(ends)
            for feed in feeds:
                feed.may_go_on.set()
            for beginning, call in zip(begun, calls, strict=True):
                assert beginning + found(call) == wanted
        assert first.wait(TIMEOUT_SECONDS) == (0 if ends is signal.SIGTERM else -ends)


def test_an_asyncio_call_goes_on_while_servers_stop_one_after_the_other(bundles: Path):
    async def through_stops() -> None:
        with server_process(bundles) as first, server_process(bundles) as second:
            ports = port_of(first), port_of(second)
            for process in (first, second):
                assert process.stderr is not None
                threading.Thread(target=process.stderr.read, daemon=True).start()
            wanted = await asyncio.to_thread(expected, f"127.0.0.1:{ports[1]}")
            target = f"127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
            async with AsyncClient(target) as client:
                feed, collected = Feed(), []
                async for each in client.bulk_translate(feed):
                    collected.append((each.id, each.text))
                    if len(collected) == 100:
                        first.send_signal(signal.SIGTERM)
                        await asyncio.to_thread(first.wait, TIMEOUT_SECONDS)
                        feed.may_go_on.set()
                assert collected == wanted
                second.send_signal(signal.SIGTERM)
                await asyncio.to_thread(second.wait, TIMEOUT_SECONDS)
                with pytest.raises(UnavailableError):
                    async for _ in client.bulk_translate(["a"]):
                        pass

    asyncio.run(through_stops())


def test_a_job_of_the_command_goes_on_at_the_other_server(
    loop: LoopThread, settings: Callable[..., Any], start: Callable[..., Running], tmp_path: Path
):
    source, output, codes = tmp_path / "in.txt", tmp_path / "out.txt", []
    texts = [text for _, text in TEXTS[:1200]]
    source.write_text("\n".join(texts))
    second = start()
    with stoppable_server(loop, settings()) as first:
        target = f"127.0.0.1:{first.server.port},127.0.0.1:{second.server.port}"
        flags = [f"--target={target}", f"--input={source}", f"--output={output}"]
        command = ["translate", *flags, "--batch-size=32"]
        job = threading.Thread(target=lambda: codes.append(main(command)))
        job.start()
        calls = {"grpc_method": "BulkTranslate"}
        wait_until(lambda: first.metric("grpc_server_started_total", **calls) > 3)
        loop.run(first.server.stop())
        job.join()
    assert codes == [0]
    translations = dict(zip(texts, (text for _, text in expected(target)), strict=False))
    assert output.read_text().splitlines() == [translations[text] for text in texts]


def test_an_idle_input_keeps_no_call_and_is_taken_up_again(
    start: Callable[..., Running],
):
    running = start(max_request_seconds=0.3)
    may_go_on = threading.Event()

    def texts() -> Iterator[str]:
        yield TEXT
        assert may_go_on.wait(TIMEOUT_SECONDS)
        yield TEXT

    with Client(f"127.0.0.1:{running.server.port}") as client:
        results = client.bulk_translate(texts())
        first = next(results).text
        wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
        may_go_on.set()
        assert [each.text for each in results] == [first]


def test_a_call_goes_on_when_its_connection_ends_by_age(start: Callable[..., Running]):
    running = start(max_connection_age_seconds=0.3, max_request_seconds=1.0)
    calls = {"grpc_method": "BulkTranslate"}

    def texts() -> Iterator[tuple[str, str]]:
        for pair in TEXTS:
            if running.metric("grpc_server_started_total", **calls) > 2:
                return  # the call has gone on twice
            time.sleep(0.01)
            yield pair

    with Client(f"127.0.0.1:{running.server.port}") as client:
        results = found(client.bulk_translate(texts()))
    assert [text_id for text_id, _ in results] == [text_id for text_id, _ in TEXTS[: len(results)]]
    assert running.metric("grpc_server_started_total", **calls) > 2
