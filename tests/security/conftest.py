from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attendant_client import Client, RetryPolicy
from attendant_server.app import Server
from attendant_server.security import security, watching
from attendant_server.security.api_keys import new_api_key
from attendant_server.settings import Settings

from tests.support.application import TINY_BUNDLES
from tests.support.credentials import Authority
from tests.support.serving import LoopThread

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def settings() -> Callable[..., Settings]:
    """Settings of a server on free ports with tiny models; keyword arguments override them."""

    def changed(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "bundles": TINY_BUNDLES,
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


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed files are noticed at once."""
    monkeypatch.setattr(security, "watch", lambda files: watching.watch(files, 0.01))


@pytest.fixture
def start(loop: LoopThread, settings: Callable[..., Settings]) -> Iterator[Callable[..., Server]]:
    """Starts a server of this process with the given settings, and stops it after the test."""

    def stop(server: Server) -> None:
        loop.run(server.stop())

    def start(**values: Any) -> Server:
        server = Server(settings(**values))
        loop.run(server.__aenter__())
        stack.callback(stop, server)
        return server

    with ExitStack() as stack:
        yield start


@pytest.fixture
def client_of() -> Iterator[Callable[..., Client]]:
    """Makes clients of a server that do not retry; ``scheme`` begins their target."""

    def client_of(server: Server, scheme: str = "", host: str = "localhost", **options: Any) -> Any:
        target = f"{scheme}{host}:{server.port}"
        return stack.enter_context(Client(target, retry=ONCE, **options))

    with ExitStack() as stack:
        yield client_of


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class KeyFile:
    """A file of API keys."""

    def __init__(self, path: Path) -> None:
        self.path, self._entries = path, dict[str, str]()
        self.write()

    def add(self, name: str, more: str = "") -> str:
        """Add a key, with further lines for its entry; returns the key."""
        key, self._entries[name] = new_api_key(name)
        self._entries[name] += more
        self.write()
        return key

    def remove(self, name: str) -> None:
        del self._entries[name]
        self.write()

    def write(self) -> None:
        self.replace("\n".join(self._entries.values()))

    def replace(self, content: str) -> None:
        """Put a new file in the place of the old one."""
        new = self.path.with_suffix(".new")
        new.write_text(content)
        new.chmod(0o600)
        new.replace(self.path)


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.toml")
