"""Thousands of texts through a bulk call with a built-in model, beside other callers."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attendant_client import Client

from tests.support.serving import LoopThread, Running, running_server, wait_until

BUILT_IN = Path(__file__).parents[2] / "bundles"
SUBJECTS = ("The dog", "My sister", "A man", "The old woman", "Our teacher")
VERBS = ("sees", "likes", "is looking for", "has bought", "wants to read")
OBJECTS = ("a book", "the house", "my car", "two apples", "the new school", "your hat")
PLACES = ("", " in the city", " near the station", " today", " with a friend", " for the children")
ENDS = (".", "!", "?")
TEXTS = [
    f"{subject} {verb} {thing}{place}{end}"
    for subject in SUBJECTS
    for verb in VERBS
    for thing in OBJECTS
    for place in PLACES
    for end in ENDS
]


@pytest.fixture(scope="module")
def server(loop: LoopThread, settings: Callable[..., Any]) -> Iterator[Running]:
    options = {"bundles": BUILT_IN, "models": ("en-de", "bert-en-de"), "precision": "auto"}
    with running_server(loop, settings(**options, num_threads=0)) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.server.port}", timeout_seconds=600.0) as client:
        yield client


def test_thousands_of_translations_are_those_of_translate(server: Running, client: Client):
    assert len(TEXTS) == 2700
    expected = [each.text for each in client.translate(TEXTS)]
    found = [each.text for each in client.bulk_translate(TEXTS)]
    differing = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    # Rounding depends on the batch and may decide between two tokens that are nearly tied.
    assert len(differing) <= 3
    assert server.metric("attendant_held_bytes") == 0


def test_other_callers_are_answered_while_bulk_calls_run(server: Running, client: Client):
    results: list[list[str]] = []

    def bulk() -> None:
        results.append([each.text for each in client.bulk_translate(TEXTS[:600])])

    threads = [threading.Thread(target=bulk) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.metric("attendant_concurrent_calls") == 2)
    with Client(f"127.0.0.1:{server.server.port}") as other:
        for text in TEXTS[:5]:
            assert other.translate(text).text
    assert server.metric("attendant_concurrent_calls") == 2
    for thread in threads:
        thread.join()
    assert len(results[0]) == len(results[1]) == 600


def test_thousands_of_vectors_are_those_of_embed(client: Client):
    expected = client.embed(TEXTS)
    for i, found in enumerate(client.bulk_embed(TEXTS)):
        assert found.vector @ expected[i].vector > 0.999
    assert i == len(TEXTS) - 1
