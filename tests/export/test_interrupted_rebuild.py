"""A rebuild that is interrupted, killed or started twice loses no bundle and hides none."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attendant_export.bundle import exchange, rebuild
from attendant_export.bundle.export import new_bundle
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.bundle.rebuild import rebuild_bundle
from attendant_export.bundle.upgrade import upgrade_bundle
from attendant_export.bundle.verify import verify_bundle

from tests.support.bundles import one_thread

EMBEDDING = Path(__file__).parents[1] / "recorded/bundles/tiny-bert/1"
RENAMES = [(number, when) for number in (1, 2, 3) for when in ("before", "after")]


def stop(call: Callable[..., object], when: str, number: int = 1) -> Callable[..., object]:
    """Interrupt the call with this number, before or after it did its work."""
    numbers = itertools.count(1)

    def stopping(*arguments: object) -> object:
        is_stopped = next(numbers) == number
        if is_stopped and when == "before":
            raise KeyboardInterrupt
        result = call(*arguments)
        if is_stopped:
            raise KeyboardInterrupt
        return result

    return stopping


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of version 1, whose rebuilt graphs differ."""
    return Path(shutil.copytree(EMBEDDING, tmp_path / "tiny-bert" / "1"))


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system cannot exchange two folders in one step."""
    monkeypatch.setattr(exchange, "_exchange_at_once", lambda *_: False)


def left_by_killed_rebuild(bundle: Path) -> Path:
    return bundle.rename(bundle.parent / f".{bundle.name}.replaced")


def check_rebuilds(bundle: Path) -> None:
    """Check that the next rebuild succeeds and leaves nothing beside the bundle."""
    with one_thread():
        rebuild_bundle(bundle)
    assert len(verify_bundle(bundle)) > 1
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


@pytest.mark.parametrize(("number", "when"), RENAMES)
@pytest.mark.usefixtures("without_exchange")
def test_ctrl_c_in_a_rename_leaves_the_bundle_in_its_place(number, when, bundle, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stop(Path.rename, when, number))
        with pytest.raises(KeyboardInterrupt):
            rebuild_bundle(bundle)
    assert len(verify_bundle(bundle)) > 1
    check_rebuilds(bundle)


@pytest.mark.parametrize(("when", "version"), [("before", 1), ("after", 2)])
def test_ctrl_c_in_the_exchange_leaves_the_bundle_in_its_place(when, version, bundle, monkeypatch):
    with monkeypatch.context() as patched:
        exchanging = stop(exchange._exchange_at_once, when)
        patched.setattr(exchange, "_exchange_at_once", exchanging)
        with pytest.raises(KeyboardInterrupt):
            rebuild_bundle(bundle)
    assert f'"manifest_version": {version}' in (bundle / "manifest.json").read_text()
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    check_rebuilds(bundle)


@pytest.mark.usefixtures("without_exchange")
def test_a_rebuild_works_where_folders_cannot_be_exchanged_in_one_step(bundle):
    check_rebuilds(bundle)
    assert read_manifest(bundle).manifest_version == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from attendant_export.__main__ import main
from attendant_export.bundle import exchange

path, left = sys.argv[1], int(sys.argv[2])

def kill_after(call):
    def killing(*arguments):
        global left
        result = call(*arguments)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return killing

if sys.argv[3] == "renames":
    exchange._exchange_at_once = lambda *_: False
    Path.rename = kill_after(Path.rename)
else:
    exchange._exchange_at_once = kill_after(exchange._exchange_at_once)
main(["rebuild", path])
"""


@pytest.mark.parametrize(
    ("number", "how", "is_in_place"),
    [(1, "renames", False), (2, "renames", True), (1, "exchange", True)],
)
def test_a_rebuild_that_is_killed_loses_no_bundle(number, how, is_in_place, bundle, caplog):
    arguments = [str(bundle), str(number), how]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert bundle.exists() == is_in_place
    check_rebuilds(bundle)
    assert ("is restored" in caplog.text) == (not is_in_place)


def test_commands_name_the_folder_where_a_killed_rebuild_left_the_bundle(bundle):
    replaced = left_by_killed_rebuild(bundle)
    hint = f"left the bundle in {replaced}: rename that folder to 1"
    with pytest.raises(BundleError, match=hint):
        verify_bundle(bundle)
    with (
        pytest.raises(BundleError, match=f"exists already.*{hint}"),
        new_bundle(bundle.parents[1], "tiny-bert", "1"),
    ):
        pass
    assert len(verify_bundle(replaced)) > 1


def test_a_bundle_that_a_killed_rebuild_left_is_kept_while_its_successor_is_damaged(bundle, caplog):
    replaced = left_by_killed_rebuild(bundle)
    shutil.copytree(replaced, bundle)
    (bundle / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="tokenizer.json has another SHA-256"):
        rebuild_bundle(bundle)
    assert f"{replaced}: a killed rebuild left the earlier bundle there" in caplog.text
    assert len(verify_bundle(replaced)) > 1


def test_a_bundle_is_rebuilt_or_upgraded_by_one_process_at_a_time(bundle, monkeypatch):
    def verify(new: Path) -> list[str]:
        for command in (rebuild_bundle, upgrade_bundle):
            with pytest.raises(BundleError, match=f"{bundle}: another process is writing"):
                command(bundle)
        return verify_bundle(new)

    with monkeypatch.context() as patched:
        patched.setattr(rebuild, "verify_bundle", verify)
        rebuild_bundle(bundle)
    check_rebuilds(bundle)


def test_a_new_bundle_is_written_by_one_process_at_a_time(tmp_path):
    with new_bundle(tmp_path, "new", "1") as (folder, _):
        (folder / "file").touch()
        with (
            pytest.raises(BundleError, match="new/1: another process is writing"),
            new_bundle(tmp_path, "new", "1"),
        ):
            pass
    assert (tmp_path / "new/1/file").is_file()


def test_a_lock_is_not_taken_on_a_scratch_folder_that_its_owner_has_removed(bundle, monkeypatch):
    scratch = bundle.parent / ".rebuild-1"
    open_ = os.open

    def open_before_the_end(path, *arguments):
        opened = open_(path, *arguments)
        if path == scratch:
            scratch.rmdir()
        return opened

    with monkeypatch.context() as patched:
        patched.setattr("os.open", open_before_the_end)
        with pytest.raises(BundleError, match="another process is writing"):
            rebuild_bundle(bundle)
    check_rebuilds(bundle)


def test_new_files_are_on_the_disk_before_they_take_the_place_of_the_old_ones(bundle, monkeypatch):
    synced: list[Path] = []
    missing: list[Path] = []
    sync = exchange.sync

    def record(path: Path) -> None:
        sync(path)
        synced.append(path)

    def check_synced(folder: Path, new: Path) -> bool:
        missing.extend(path for path in new.rglob("*") if path not in synced)
        return False

    monkeypatch.setattr(exchange, "sync", record)
    monkeypatch.setattr(exchange, "_exchange_at_once", check_synced)
    rebuild_bundle(bundle)
    assert missing == []
    assert bundle.parent in synced


@pytest.mark.usefixtures("without_exchange")
def test_a_bundle_that_cannot_be_replaced_stays_in_its_place(bundle, monkeypatch):
    rename = Path.rename

    def fail_for_the_new_bundle(self, target):
        if self.name == "bundle":
            raise PermissionError(13, "Permission denied", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_bundle)
    with pytest.raises(PermissionError):
        rebuild_bundle(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    assert '"manifest_version": 1' in (bundle / "manifest.json").read_text()


def test_what_a_killed_rebuild_left_is_removed(bundle):
    (bundle.parent / ".rebuild-1/bundle").mkdir(parents=True)
    (bundle.parent / ".rebuild-1/file").touch()
    check_rebuilds(bundle)


def test_a_link_in_the_place_of_the_scratch_folder_is_not_followed(bundle, tmp_path):
    (tmp_path / "elsewhere/folder").mkdir(parents=True)
    (bundle.parent / ".rebuild-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"\.rebuild-1"):
        rebuild_bundle(bundle)
    assert (tmp_path / "elsewhere/folder").is_dir()
