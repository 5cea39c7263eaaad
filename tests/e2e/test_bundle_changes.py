"""Bundles that appear, change and disappear in the folder of a running server."""

import errno
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import translation_pb2_grpc
from attendant.v1.model_pb2 import ListModelsRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.app import Server
from attendant_server.application.descriptions import ModelDescription
from attendant_server.bundles import BundleError
from attendant_server.observability.model_series import ModelSeries

from tests.support.processes import line_of, port_of, server_command, server_process
from tests.support.serving import TIMEOUT_SECONDS, Running, wait_until
from tests.support.versions import add_version, damage

REQUEST = TranslateRequest(model="tiny-en-de", texts=["The dog sees the king."])


@pytest.fixture
def root(tmp_path: Path, translation_bundle: Path) -> Path:
    """A folder with version 1 of a translation model."""
    add_version(translation_bundle, tmp_path, "1")
    return tmp_path


@pytest.fixture
def server(start: Callable[..., Running], root: Path) -> Running:
    return start(bundles=root)


def refresh(server: Running) -> None:
    server.loop.run(server.server.lifecycle.refresh())


def keys(server: Running) -> list[str]:
    listed = server.models.ListModels(ListModelsRequest()).models
    return [f"{model.name}/{model.version}" for model in listed]


def default(server: Running) -> str:
    """The model that a call by its name gets."""
    return str(server.translation.Translate(REQUEST).model)


def test_a_refresh_serves_what_was_added_and_ends_what_was_removed(
    server: Running, root: Path, translation_bundle: Path, embedding_bundle: Path
):
    add_version(translation_bundle, root, "2")
    add_version(embedding_bundle, root, "1")
    refresh(server)
    assert keys(server) == ["tiny-bert/1", "tiny-en-de/1", "tiny-en-de/2"]
    assert default(server) == "tiny-en-de/2"
    shutil.rmtree(root / "tiny-en-de" / "2")
    shutil.rmtree(root / "tiny-bert")
    refresh(server)
    assert keys(server) == ["tiny-en-de/1"]
    assert default(server) == "tiny-en-de/1"


def test_a_refresh_keeps_good_models_and_tells_of_the_broken(
    server: Running, root: Path, translation_bundle: Path, caplog: pytest.LogCaptureFixture
):
    damage(add_version(translation_bundle, root, "2"))
    (add_version(translation_bundle, root, "3") / "manifest.json").write_text("{")
    add_version(translation_bundle, root, "4")
    (root / "tiny-en-de" / "1" / "manifest.json").write_text("")
    refresh(server)
    assert keys(server) == ["tiny-en-de/1", "tiny-en-de/4"]
    assert server.metric("attendant_model_changes_total", result="failed") == 3
    for version in "123":
        assert f"event=model_not_loaded bundle={root}/tiny-en-de/{version} " in caplog.text


def test_an_empty_folder_is_taken_for_a_fault(server: Running, root: Path, caplog: Any):
    (root / "tiny-en-de").rename(root / ".gone")
    refresh(server)
    assert keys(server) == ["tiny-en-de/1"]
    assert "event=bundles_not_refreshed" in caplog.text
    assert default(server) == "tiny-en-de/1"


def test_a_model_that_was_unloaded_on_request_stays_unloaded(
    server: Running, root: Path, translation_bundle: Path
):
    add_version(translation_bundle, root, "2")
    refresh(server)
    server.loop.run(server.server.lifecycle.unload("tiny-en-de/1"))
    refresh(server)
    assert keys(server) == ["tiny-en-de/2"]
    server.loop.run(server.server.lifecycle.load("tiny-en-de/1"))
    refresh(server)
    assert keys(server) == ["tiny-en-de/1", "tiny-en-de/2"]


def test_only_the_wanted_models_are_added_unless_one_is_asked_for(
    start: Callable[..., Running], root: Path, translation_bundle: Path, embedding_bundle: Path
):
    server = start(bundles=root, models=("tiny-en-de/1",))
    add_version(translation_bundle, root, "2")
    add_version(embedding_bundle, root, "1")
    refresh(server)
    assert keys(server) == ["tiny-en-de/1"]
    server.loop.run(server.server.lifecycle.load("tiny-bert"))
    refresh(server)
    assert keys(server) == ["tiny-bert/1", "tiny-en-de/1"]


def test_a_file_chooses_the_default_version(
    start: Callable[..., Running], root: Path, translation_bundle: Path, caplog: Any
):
    add_version(translation_bundle, root, "2")
    chosen = root / "tiny-en-de" / "default-version"
    chosen.write_text("1\n")
    server = start(bundles=root)
    assert default(server) == "tiny-en-de/1"
    chosen.write_text("2")
    refresh(server)
    assert default(server) == "tiny-en-de/2"
    chosen.write_text("3")
    refresh(server)
    assert default(server) == "tiny-en-de/2"
    assert f"{chosen}: must hold a version of tiny-en-de that is served" in caplog.text
    add_version(translation_bundle, root, "3")
    chosen.unlink()
    refresh(server)
    assert default(server) == "tiny-en-de/3"


def test_a_default_version_that_is_not_there_is_refused_at_the_start(settings: Any, root: Path):
    (root / "tiny-en-de" / "default-version").write_text("7")
    with pytest.raises(BundleError, match="default-version: must hold a version of tiny-en-de"):
        Server(settings(bundles=root))


def test_a_default_version_that_cannot_be_served_is_skipped_with_bad_bundles(
    start: Callable[..., Running], root: Path, translation_bundle: Path, caplog: Any
):
    add_version(translation_bundle, root, "2")
    (add_version(translation_bundle, root, "3") / "manifest.json").write_text("{")
    chosen = root / "tiny-en-de" / "default-version"
    chosen.write_text("3")
    server = start(bundles=root, bad_bundles="skip")
    assert default(server) == "tiny-en-de/2"
    assert f"event=default_version_ignored {chosen}: must hold a version of" in caplog.text
    assert server.metric("attendant_model_changes_total", result="failed") == 2


def test_a_bundle_is_described_and_its_series_are_begun_once_at_the_start(
    start: Callable[..., Running], root: Path, monkeypatch: pytest.MonkeyPatch
):
    add, begun = ModelSeries.add, list[str]()

    def begin(series: ModelSeries, model: ModelDescription) -> None:
        begun.append(model.key)
        add(series, model)

    monkeypatch.setattr(ModelSeries, "add", begin)
    server = start(bundles=root)
    assert begun == ["tiny-en-de/1"]
    assert server.metric("attendant_max_rows", model="tiny-en-de/1") > 0


def test_a_folder_that_cannot_be_read_is_not_taken_for_a_removed_one(
    server: Running,
    root: Path,
    embedding_bundle: Path,
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    """The fault is simulated: root, who may run the tests, can read everything."""
    add_version(embedding_bundle, root, "1")
    refresh(server)
    iterdir, closed = Path.iterdir, root / "tiny-bert"

    def refuse_one(path: Path) -> Any:
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse_one)
    refresh(server)
    assert keys(server) == ["tiny-bert/1", "tiny-en-de/1"]
    assert f"event=bundles_not_refreshed {closed}: Permission denied" in caplog.text


@pytest.mark.parametrize("target", ["9", "/"])
def test_a_link_to_itself_or_to_all_files_does_not_hide_the_changes_of_a_watched_folder(
    start: Callable[..., Running], root: Path, translation_bundle: Path, target: str
):
    (root / "tiny-en-de" / "9").symlink_to(target)
    server = start(bundles=root, watch_bundles_seconds=0.05)
    add_version(translation_bundle, root, "2")
    wait_until(lambda: keys(server) == ["tiny-en-de/1", "tiny-en-de/2"])


def test_default_versions_of_models_that_are_not_served_do_not_matter(
    start: Callable[..., Running], root: Path, embedding_bundle: Path
):
    add_version(embedding_bundle, root, "1")
    (root / "tiny-bert" / "default-version").write_text("1")
    server = start(bundles=root, models=("tiny-en-de",))
    refresh(server)
    assert keys(server) == ["tiny-en-de/1"]
    assert server.metric("attendant_model_changes_total", result="failed") == 0


def test_a_default_version_must_be_a_small_regular_file(settings: Any, root: Path):
    chosen = root / "tiny-en-de" / "default-version"
    os.mkfifo(chosen)
    with pytest.raises(BundleError, match="default-version: is not a regular file"):
        Server(settings(bundles=root))
    chosen.unlink()
    chosen.write_text("1" * 257)
    with pytest.raises(BundleError, match="default-version: larger than 256 bytes"):
        Server(settings(bundles=root))


def test_a_watched_folder_is_served_as_it_is(
    start: Callable[..., Running], root: Path, translation_bundle: Path
):
    server = start(bundles=root, watch_bundles_seconds=0.05)
    add_version(translation_bundle, root, "2")
    wait_until(lambda: keys(server) == ["tiny-en-de/1", "tiny-en-de/2"])
    shutil.rmtree(root / "tiny-en-de" / "1")
    wait_until(lambda: keys(server) == ["tiny-en-de/2"])
    assert default(server) == "tiny-en-de/2"


def test_a_bad_bundle_ends_the_start_or_is_skipped(
    start: Callable[..., Running], settings: Any, root: Path, translation_bundle: Path, caplog: Any
):
    damage(add_version(translation_bundle, root, "2"))
    (add_version(translation_bundle, root, "3") / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="tiny-en-de/3"):
        start(bundles=root)
    server = start(bundles=root, bad_bundles="skip")
    assert keys(server) == ["tiny-en-de/1"]
    assert default(server) == "tiny-en-de/1"
    assert server.metric("attendant_model_changes_total", result="failed") == 2
    assert "its SHA-256 is not the one in the manifest" in caplog.text


def test_a_hangup_refreshes_the_models_under_load_and_fails_no_call(
    root: Path, translation_bundle: Path
):
    with (
        server_process(root) as process,
        grpc.insecure_channel(f"127.0.0.1:{port_of(process)}") as channel,
    ):
        stub: Any = translation_pb2_grpc.TranslationServiceStub(channel)
        add_version(translation_bundle, root, "2")
        process.send_signal(signal.SIGHUP)
        seen = set()
        while "tiny-en-de/2" not in seen:
            calls = [stub.Translate.future(REQUEST, timeout=TIMEOUT_SECONDS) for _ in range(8)]
            seen |= {call.result().model for call in calls}
        shutil.rmtree(root / "tiny-en-de" / "1")
        process.send_signal(signal.SIGHUP)
        line_of("model_unloaded", process)
        assert stub.Translate(REQUEST).model == "tiny-en-de/2"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0


@contextmanager
def server_on_a_terminal(
    root: Path, log: Path, *wrapper: str
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A server with a pseudo-terminal, whose closing sends SIGHUP to the server's session.

    Yields the process and the terminal. SIGHUP is not ignored, even if it is by the tests.
    """
    terminal, side = pty.openpty()
    server = server_command(root, "--lame-duck-seconds", "0")
    command = ["env", "--default-signal=HUP", "setsid", "--ctty", "--wait", *wrapper, *server]
    with log.open("w") as output, subprocess.Popen(command, stdin=side, stderr=output) as process:
        os.close(side)
        try:
            wait_until(lambda: "event=serving" in log.read_text())
            yield process, terminal
        finally:
            process.kill()


def test_a_server_stops_when_its_terminal_is_closed(root: Path, tmp_path: Path):
    log = tmp_path / "log"
    with server_on_a_terminal(root, log) as (process, terminal):
        os.close(terminal)
        process.wait(TIMEOUT_SECONDS)
    assert "event=stopped" in log.read_text()


def test_a_server_under_nohup_survives_its_terminal(root: Path, tmp_path: Path):
    log = tmp_path / "log"
    with server_on_a_terminal(root, log, "nohup") as (process, terminal):
        os.close(terminal)
        wait_until(lambda: "event=refreshing" in log.read_text())
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0


def test_several_models_are_replaced_and_removed_at_once_and_all_are_freed(
    start: Callable[..., Running], root: Path, translation_bundle: Path, embedding_bundle: Path
):
    for version in "23":
        add_version(translation_bundle, root, version)
    add_version(embedding_bundle, root, "1")
    server = start(bundles=root)

    def describe_anew(manifest: Any) -> None:
        manifest["description"] = "Another model."

    for version in "12":
        add_version(translation_bundle, root, version, describe_anew)
    for removed in ("tiny-en-de/3", "tiny-bert"):
        shutil.rmtree(root / removed)
    refresh(server)
    listed = server.models.ListModels(ListModelsRequest()).models
    assert [model.description for model in listed] == ["Another model."] * 2
    assert server.server.engine is not None
    engine_models = server.server.engine._models
    wait_until(lambda: len(engine_models) == 2)
    wait_until(lambda: server.metric("attendant_model_changes_total", result="unloaded") == 4)
