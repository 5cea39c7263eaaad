from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attendant_server.settings import Settings
from attendant_vendored.inference import grpc_service_pb2_grpc
from attendant_vendored.tei import tei_pb2_grpc

from tests.conftest import imports_compare_one_of
from tests.support.serving import LoopThread, Running, running_server

RECORDED = Path(__file__).parents[1] / "recorded"
FOLDERS = ("bundles", "classifiers", "splade", "language_models")


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny model for each task but reranking."""
    root = tmp_path_factory.mktemp("bundles")
    for folder in FOLDERS:
        for bundle in (RECORDED / folder).iterdir():
            (root / bundle.name).symlink_to(bundle)
    return root


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that has one label."""
    from attendant_export.bundle.importing import ImportOptions, import_bundle

    from tests.support.bundles import one_thread
    from tests.support.classifiers import write_classifier

    root = tmp_path_factory.mktemp("reranker")
    source = write_classifier(root / "tiny-reranker", "bert", num_labels=1)
    with one_thread(), imports_compare_one_of(16):
        import_bundle(source, root / "bundles", ImportOptions(max_tokens=60, precisions=["fp32"]))
    return root / "bundles"


@pytest.fixture(scope="session")
def settings(bundles: Path) -> Callable[..., Settings]:
    """Creates settings for a server on free ports; keyword arguments override them."""

    def changed(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "bundles": bundles,
            "default_models": ("tiny-bert",),
            "host": "127.0.0.1",
            "port": 0,
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


class TeiStubs:
    """The stubs of all services of TEI."""

    def __init__(self, channel: Any) -> None:
        self.info: Any = tei_pb2_grpc.InfoStub(channel)
        self.embed: Any = tei_pb2_grpc.EmbedStub(channel)
        self.predict: Any = tei_pb2_grpc.PredictStub(channel)
        self.rerank: Any = tei_pb2_grpc.RerankStub(channel)
        self.tokenize: Any = tei_pb2_grpc.TokenizeStub(channel)


@pytest.fixture(scope="session")
def tei(running: Running) -> TeiStubs:
    return TeiStubs(running.channel)
