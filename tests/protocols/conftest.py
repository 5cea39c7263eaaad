from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attendant_server.settings import Settings
from attendant_vendored.inference import grpc_service_pb2_grpc

from tests.support.http import HttpClient
from tests.support.serving import LoopThread, Running, running_server
from tests.support.tei import TeiStubs

RECORDED = Path(__file__).parents[1] / "recorded"
FOLDERS = ("bundles", "classifiers", "splade", "language_models")


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny model for each task but reranking (see tests/e2e/test_rerank.py)."""
    root = tmp_path_factory.mktemp("bundles")
    for folder in FOLDERS:
        for bundle in (RECORDED / folder).iterdir():
            (root / bundle.name).symlink_to(bundle)
    return root


@pytest.fixture(scope="session")
def settings(bundles: Path) -> Callable[..., Settings]:
    """Creates settings for a server on free ports; keyword arguments override them."""

    def changed(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "bundles": bundles,
            "default_models": ("tiny-bert",),
            "host": "127.0.0.1",
            "port": 0,
            "http_host": "127.0.0.1",
            "http_port": 0,
            "metrics_host": "127.0.0.1",
            "metrics_port": 0,
            "lame_duck_seconds": 0.0,
            "num_threads": 1,
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


@pytest.fixture(scope="session")
def kserve(running: Running) -> Any:
    return grpc_service_pb2_grpc.GRPCInferenceServiceStub(running.channel)


@pytest.fixture(scope="session")
def http(running: Running) -> Iterator[HttpClient]:
    with HttpClient(running.server.http_port) as client:
        yield client


@pytest.fixture(scope="session")
def tei(running: Running) -> TeiStubs:
    return TeiStubs(running.channel)
