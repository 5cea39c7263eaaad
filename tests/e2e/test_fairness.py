"""A caller beside the floods of others, on a real server: the order of answers, not their times."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub
from attendant.v1.translation_pb2 import ScoreRequest, TranslateRequest, TranslationPair
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, failure_of

TEXTS = [english for english, _ in sentence_pairs()]
FLOOD = TranslateRequest(texts=(TEXTS * 256)[:256])
ONE = TranslateRequest(texts=TEXTS[:1])
NUM_FLOODS, NUM_QUIET = 4, 8


@contextmanager
def connection(running: Running) -> Iterator[Any]:
    """A channel with a connection of its own, so that the server takes it for another caller."""
    target = f"127.0.0.1:{running.server.port}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options=options) as channel:
        grpc.channel_ready_future(channel).result(60)
        yield channel


def answers_in_order(
    running: Running,
    flood_calls: list[tuple[Any, Any]],
    quiet_calls: list[tuple[Any, Any]],
    num_queued: int,
    **options: Any,
) -> list[str]:
    """Who was answered, in order, when the floods had queued all texts before the quiet caller."""
    order: list[str] = []
    futures = []
    with running.held_engine():
        for name, calls in (("flood", flood_calls), ("quiet", quiet_calls)):
            for method, request in calls:
                future = method.future(request, timeout=60, **options)
                future.add_done_callback(lambda _, name=name: order.append(name))
                futures.append(future)
            if name == "flood":
                running.wait_for_queued(num_queued)
        running.wait_for_queued(num_queued + len(quiet_calls))
    for future in futures:
        assert future.result()
    return order


def test_a_quiet_caller_is_answered_before_four_floods_that_came_first(start):
    running = start(max_queued_texts=4096)
    with ExitStack() as stack:
        stubs = [
            TranslationServiceStub(stack.enter_context(connection(running)))
            for _ in range(NUM_FLOODS + 1)
        ]
        floods = [(stub.Translate, FLOOD) for stub in stubs[:NUM_FLOODS]]
        quiet = [(stubs[-1].Translate, ONE)] * NUM_QUIET
        num_queued = NUM_FLOODS * len(FLOOD.texts)
        order = answers_in_order(running, floods, quiet, num_queued)
    assert order == ["quiet"] * NUM_QUIET + ["flood"] * NUM_FLOODS


def test_a_quiet_caller_is_answered_before_floods_of_pairs(start):
    running = start(max_queued_texts=4096)
    pairs = [TranslationPair(source=text, target=text) for text in FLOOD.texts]
    with connection(running) as first, connection(running) as second:
        floods = [(TranslationServiceStub(first).Score, ScoreRequest(pairs=pairs))] * NUM_FLOODS
        quiet = [(TranslationServiceStub(second).Translate, ONE)] * NUM_QUIET
        order = answers_in_order(running, floods, quiet, NUM_FLOODS * len(pairs))
    assert order == ["quiet"] * NUM_QUIET + ["flood"] * NUM_FLOODS


def test_interactive_calls_of_a_connection_are_answered_before_its_bulk_calls(running):
    translate = running.translation.Translate
    done: list[str] = []
    with running.held_engine():
        futures = []
        for name in ["bulk"] * 20 + ["interactive"] * 3:
            metadata = [("attendant-class", name)]
            futures.append(translate.future(ONE, timeout=60, metadata=metadata))
            futures[-1].add_done_callback(lambda _, name=name: done.append(name))
            running.wait_for_queued(len(futures))
    for future in futures:
        assert future.result()
    assert done[:3] == ["interactive"] * 3


@pytest.mark.parametrize("given", ["", "Bulk", "batch", "bulk,interactive"])
def test_another_class_is_refused(running, given):
    metadata = [("attendant-class", given)]
    for call, request in (
        (running.translation.Translate, ONE),
        (running.embedding.Embed, EmbedRequest(texts=TEXTS[:1])),
    ):
        error = failure_of(call, request, metadata=metadata, timeout=60)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "attendant-class: must be interactive or bulk"


def test_one_connection_cannot_take_all_places_of_the_queue(start):
    running = start(max_queued_texts=8, max_texts=8)
    with connection(running) as channel:
        with running.held_engine():
            translate = running.translation.Translate
            waiting = [translate.future(ONE, timeout=60) for _ in range(6)]
            running.wait_for_queued(6)
            error = failure_of(translate, ONE, timeout=60)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "of this caller are waiting" in error.details()
            waiting.append(TranslationServiceStub(channel).Translate.future(ONE, timeout=60))
            running.wait_for_queued(7)
        for future in waiting:
            assert future.result()


def test_embeddings_of_a_quiet_caller_do_not_wait_for_a_flood(start):
    running = start(max_queued_texts=4096)
    order: list[str] = []
    with connection(running) as first, connection(running) as second:
        with running.held_engine():
            request = EmbedRequest(texts=list(FLOOD.texts))
            floods = [EmbeddingServiceStub(first).Embed.future(request) for _ in range(NUM_FLOODS)]
            running.wait_for_queued(NUM_FLOODS * 256, model="tiny-bert/1")
            request = EmbedRequest(texts=TEXTS[:1])
            quiet = [EmbeddingServiceStub(second).Embed.future(request) for _ in range(NUM_QUIET)]
            running.wait_for_queued(NUM_FLOODS * 256 + NUM_QUIET, model="tiny-bert/1")
            for name, futures in (("flood", floods), ("quiet", quiet)):
                for future in futures:
                    future.add_done_callback(lambda _, name=name: order.append(name))
        for future in [*floods, *quiet]:
            assert future.result()
    assert order == ["quiet"] * NUM_QUIET + ["flood"] * NUM_FLOODS
