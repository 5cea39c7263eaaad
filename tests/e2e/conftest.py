from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attendant_server.application.settled_prefix import SettledPrefix
from attendant_server.settings import Settings
from attendant_server.tokenizer import TextTokenizer

from tests.support.serving import LoopThread, Running, running_server, wait_until


@pytest.fixture(scope="session")
def bundles(
    tmp_path_factory: pytest.TempPathFactory, translation_bundle: Path, embedding_bundle: Path
) -> Path:
    """A folder with both tiny bundles."""
    root = tmp_path_factory.mktemp("all-bundles")
    for bundle in (translation_bundle, embedding_bundle):
        (root / bundle.parent.name).symlink_to(bundle.parent)
    return root


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def settings(bundles: Path) -> Callable[..., Settings]:
    """Creates settings for a server on free ports; keyword arguments override them."""

    def changed(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "bundles": bundles,
            "host": "127.0.0.1",
            "port": 0,
            "metrics_host": "127.0.0.1",
            "metrics_port": 0,
            "lame_duck_seconds": 0.0,
            "num_threads": 1,
            "precision": "fp32",
        }
        return Settings(**(defaults | values))

    return changed


@pytest.fixture(scope="session")
def running(loop: LoopThread, settings: Callable[..., Settings]) -> Iterator[Running]:
    """A server with default settings, shared by all tests that need no others."""
    with running_server(loop, settings()) as server:
        yield server


@pytest.fixture
def start(loop: LoopThread, settings: Callable[..., Settings]) -> Iterator[Callable[..., Running]]:
    """Starts a server with changed settings, and stops it when the test ends."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(running_server(loop, settings(**values)))


@pytest.fixture
def every_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the engine wait until a stream has decoded each settled prefix, so that none is skipped.

    For one stream per test.
    """
    decoded = set[tuple[int, ...]]()
    decode_words, put = TextTokenizer.decode_words, SettledPrefix.put

    def decode(tokenizer: TextTokenizer, token_ids: tuple[int, ...]) -> str:
        words = decode_words(tokenizer, token_ids)
        decoded.add(token_ids)
        return words

    def put_and_wait(prefix: SettledPrefix, token_ids: tuple[int, ...]) -> None:
        put(prefix, token_ids)
        wait_until(lambda: token_ids in decoded)

    monkeypatch.setattr(TextTokenizer, "decode_words", decode)
    monkeypatch.setattr(SettledPrefix, "put", put_and_wait)
