"""Bundles at a URL: downloads that are cut, wrong or refused, and the cache."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from attendant_server.bundles import Bundle, BundleError
from attendant_server.extras import StartError, new_bundle_source
from attendant_server.loading import read_bundles
from attendant_server.observability.metrics import NoMetrics
from attendant_server.remote import downloads
from attendant_server.remote.remote_files import RemoteError, refuse_downgrades
from attendant_server.settings import Settings, SettingsError
from yarl import URL

from tests.support.application import TINY_BUNDLES
from tests.support.stores import BundleStore, bundle_store

KEY = "tiny-en-de/1"
WEIGHTS = f"{KEY}/weights.fp32.bin"


class Counts(NoMetrics):
    """Counts downloads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes, self.results = 0, Counter[str]()

    def on_downloaded_bytes(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes

    def on_bundle_download(self, result: str) -> None:
        self.results[result] += 1


class Reader:
    """What a server does with its bundles before it loads them."""

    def __init__(self, url: str, cache: Path, **settings: object) -> None:
        self.counts = Counts()
        values = {"models": ("tiny-en-de",), "precision": "fp32", "bundles_cache_dir": str(cache)}
        self.settings = Settings(bundles=url, **(values | settings))  # type: ignore[arg-type]
        self.source = new_bundle_source(self.settings, self.counts)

    def read(self) -> list[Bundle]:
        return read_bundles(self.settings, self.settings.models, source=self.source)

    def fetch(self) -> Bundle:
        [bundle] = self.read()
        return self.source.fetch(bundle)


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "FIRST_DELAY_SECONDS", 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BundleStore]:
    shutil.copytree(TINY_BUNDLES, tmp_path / "store")
    with bundle_store(tmp_path / "store") as running:
        yield running


@pytest.fixture
def reader(store: BundleStore, tmp_path: Path) -> Iterator[Callable[..., Reader]]:
    """Creates readers of the store with one cache; they are closed after the test."""
    readers = []

    def new(**settings: object) -> Reader:
        readers.append(Reader(store.url, tmp_path / "cache", **settings))
        return readers[-1]

    yield new
    for each in readers:
        each.source.close()


def same_files(bundle: Bundle) -> bool:
    original = TINY_BUNDLES / bundle.key
    listed = [file.path for file in bundle.loaded_files()]
    return all((bundle.directory / p).read_bytes() == (original / p).read_bytes() for p in listed)


def test_only_the_files_of_the_precision_are_downloaded_and_only_once(reader, store):
    bundle = reader().fetch()
    bundle.check_files()
    assert same_files(bundle)
    names = {path.name for path in bundle.directory.iterdir()}
    assert "weights.fp32.bin" in names
    assert not {name for name in names if ".int8." in name or ".md" in name}
    num_requests = len(store.ranges_of(WEIGHTS))
    assert reader().fetch().directory == bundle.directory
    assert len(store.ranges_of(WEIGHTS)) == num_requests == 1
    assert not [path for path, _ in store.requests if "passwd" in path or ".." in path]


def test_a_file_that_is_cut_again_and_again_is_resumed_where_it_was_cut(reader, store):
    size = (TINY_BUNDLES / WEIGHTS).stat().st_size
    store.faults[WEIGHTS] = [("cut", size // 6)] * 4
    cut = reader()
    assert same_files(cut.fetch())
    offsets = [int(re.sub(r"\D", "", asked) or 0) for asked in store.ranges_of(WEIGHTS)]
    assert len(offsets) == 5
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0
    assert cut.counts.results == {"interrupted": 4, "completed": 1}


@pytest.mark.parametrize(
    "faults", [[500, 503, 429], ["wrong"], ["more"], [("cut", 999), "shifted"], [("cut", 999), 416]]
)
def test_a_file_that_comes_wrong_at_first_is_right_in_the_end(reader, store, faults):
    store.faults[WEIGHTS] = list(faults)
    assert same_files(reader().fetch())


def test_a_store_without_ranges_sends_the_whole_file_again(reader, store):
    store.has_ranges = False
    store.faults[WEIGHTS] = [("cut", 999)]
    assert same_files(reader().fetch())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (404, "does not exist"),
        (403, "the answer has status 403"),
        (500, "the answer has status 500"),
        ("wrong", "does not have the size and SHA-256 of the manifest"),
        ("more", "does not have the size and SHA-256 of the manifest"),
        (("cut", 0), "cannot be read: ClientPayloadError"),
    ],
)
def test_a_file_that_stays_wrong_is_named_and_the_version_never_appears(
    reader, store, fault, reason
):
    store.faults[WEIGHTS] = [fault] * 9
    failing = reader()
    with pytest.raises(BundleError, match=f"^{WEIGHTS}: {reason}"):
        failing.fetch()
    assert failing.counts.results["failed"] == 1
    [bundle] = failing.read()
    assert not failing.source._cache.folder_of(bundle).exists()
    store.faults.clear()
    assert same_files(failing.fetch())


def test_no_more_is_read_of_a_file_than_its_size_and_a_byte(reader, store, tmp_path):
    (store.root / WEIGHTS).write_bytes(bytes(30_000_000))
    failing = reader()
    with pytest.raises(BundleError, match="does not have the size"):
        failing.fetch()
    assert failing.counts.num_bytes < 3_000_000


def test_downloads_of_a_killed_server_are_resumed_between_and_within_files(reader, store, tmp_path):
    store.faults[WEIGHTS] = [("cut", 100_000)]
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.server.test_remote_bundles import Reader, downloads\n"
        "downloads.FIRST_DELAY_SECONDS = 0.001\n"
        "downloads.logger.warning = lambda *a: os._exit(9)\n"
        "Reader(sys.argv[1], Path(sys.argv[2])).fetch()"
    )
    command = [sys.executable, "-c", code, store.url, str(tmp_path / "cache")]
    assert subprocess.run(command, check=False).returncode == 9
    before = len(store.requests)
    assert same_files(reader().fetch())
    later = store.requests[before:]
    assert [asked for path, asked in later if path == WEIGHTS and asked]
    complete = [path for path, _ in store.requests[:before] if path.endswith(".onnx")]
    assert complete
    assert not set(complete) & {path for path, _ in later}


def test_two_servers_that_start_at_once_download_a_version_once(store, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.server.test_remote_bundles import Reader\n"
        "Reader(sys.argv[1], Path(sys.argv[2])).fetch().check_files()"
    )
    command = [sys.executable, "-c", code, store.url, str(tmp_path / "cache")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(store.ranges_of(WEIGHTS)) == 1


def test_complete_versions_are_had_without_a_connection(reader, store, caplog):
    reader().fetch()
    store.faults[""] = [500] * 99
    offline = reader(models=())
    assert [bundle.key for bundle in offline.read()] == [KEY]
    assert "event=bundles_not_listed" in caplog.text
    assert same_files(offline.source.fetch(offline.read()[0]))


def test_a_changed_manifest_of_a_version_is_refused(reader, store):
    reader().fetch()
    path = store.root / KEY / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"description": "Another one."}))
    with pytest.raises(BundleError, match=f"{KEY}: its manifest.json has changed"):
        reader().read()


def test_a_version_that_is_gone_is_not_found_any_more(reader, store):
    changing = reader(models=())
    assert len(changing.read()) == 2
    shutil.rmtree(store.root / "tiny-bert")
    assert [bundle.key for bundle in changing.read()] == [KEY]


def test_named_versions_need_no_listings(reader, store):
    store.has_listings = False
    assert same_files(reader(models=(KEY,)).fetch())
    with pytest.raises(BundleError, match="no bundles"):
        Reader(store.url, store.root.parent / "other").read()


def test_default_versions_come_along(reader, store):
    choice = store.root / "tiny-en-de" / "default-version"
    choice.write_text("1\n")
    choosing = reader()
    choosing.read()
    assert (choosing.source.root / "tiny-en-de" / "default-version").read_text() == "1\n"
    choice.unlink()
    choosing.read()
    assert not (choosing.source.root / "tiny-en-de" / "default-version").exists()


def add_versions(store: BundleStore, *versions: str) -> None:
    for version in versions:
        folder = shutil.copytree(store.root / KEY, store.root / "tiny-en-de" / version)
        path = folder / "manifest.json"
        path.write_text(path.read_text().replace('"version": "1"', f'"version": "{version}"'))


def test_versions_that_no_server_serves_make_room(reader, store):
    add_versions(store, "2", "3")
    other = reader()
    one, two, three = other.read()
    small = reader(max_bundles_cache_bytes=max(2**20, int(2.9 * one.num_loaded_bytes)))
    small.read()
    fetched = [small.source.fetch(bundle).directory for bundle in (one, two)]
    other.source.fetch(one)
    small.source.release(one.key)
    small.source.release(two.key)
    assert small.source.fetch(three).directory.is_dir()
    assert [folder.is_dir() for folder in fetched] == [True, False]  # the other server serves one


def test_what_cannot_fit_is_refused_before_it_is_downloaded(reader, store):
    add_versions(store, "2", "3", "4", "5")
    small = reader(max_bundles_cache_bytes=2**20)
    *served, last = small.read()[:3]
    for bundle in served:
        small.source.fetch(bundle)
    with pytest.raises(BundleError, match=r"needs \d+ more .* max_bundles_cache_bytes 1048576 and"):
        small.source.fetch(last)
    assert not store.ranges_of(f"{last.key}/weights.fp32.bin")


@pytest.mark.parametrize(
    ("source", "target", "is_refused"),
    [
        ("https://a/x", "/y", False),
        ("https://a/x", "https://b/y?secret", False),
        ("http://a/x", "http://b/y", False),
        ("https://a/x", "http://b/y", True),
        ("https://a/x", "ftp://b", True),
    ],
)
def test_redirects_stay_on_https(source, target, is_refused):
    answer = SimpleNamespace(headers={"Location": target})
    redirect = SimpleNamespace(url=URL(source), response=answer)
    with pytest.raises(RemoteError, match="from https") if is_refused else nullcontext():
        asyncio.run(refuse_downgrades(None, None, redirect))


def test_redirects_are_followed_and_never_shown(reader, store):
    away = f"http://127.0.0.1:{store.port}/all/{KEY}/nothing?X-Amz-Signature=secret"
    store.faults[WEIGHTS] = [(301, away)]
    with pytest.raises(BundleError, match=f"{WEIGHTS}: does not exist") as failure:
        reader().fetch()
    assert "secret" not in str(failure.value)
    assert not failure.value.__cause__ or "secret" not in str(failure.value.__cause__)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:password@host/x",
        "https://host/x?token=password",
        "https://host/x#password",
        "http://host/password",
        "https://host/../password",
        "simplecache::https://host/password",
    ],
)
def test_a_url_that_is_not_safe_is_refused_and_not_shown(url):
    with pytest.raises(SettingsError) as failure:
        Settings(bundles=url)
    assert "bundles: " in str(failure.value)
    assert "password" not in str(failure.value).replace("user, password", "")


def test_a_protocol_that_nobody_knows_ends_the_start(tmp_path):
    with pytest.raises(StartError, match="bundles: Protocol not known: nothing"):
        Reader("nothing://x", tmp_path)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "attendant_server.remote.remote_bundles", None)
    with pytest.raises(StartError, match=r"attendant-server\[remote\]"):
        Reader("https://host/x", tmp_path)


def test_the_files_of_any_store_of_fsspec_are_listed_and_read(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(f"{TINY_BUNDLES}/", "/models/all/", recursive=True)
    try:
        stored = Reader("memory://models/all", tmp_path)
        assert same_files(stored.fetch())
        stored.source.close()
    finally:
        memory.rm("/models", recursive=True)
