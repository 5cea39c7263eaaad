import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attendant_server.bundles import (
    MAX_MANIFEST_BYTES,
    BundleError,
    find_bundles,
    read_bundle,
)

from tests.support.manifests import content_of, translation_manifest

Change = Callable[[dict[str, Any]], object]


def write(root: Path, manifest: dict[str, Any], folder: str = "en-de/1") -> Path:
    directory = root / folder
    directory.mkdir(parents=True)
    for file in translation_manifest()["files"]:
        (directory / file["path"]).write_bytes(content_of(file["path"]))
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path, translation_manifest())


def test_a_good_bundle_is_read_and_its_files_are_right(directory: Path):
    bundle = read_bundle(directory, "auto", "cpu")
    bundle.check_files()
    assert bundle.key == "en-de/1"
    assert bundle.graph_path("scorer") == directory / "scorer.int8.onnx"
    assert bundle.has_graph("encoder")
    assert not bundle.has_graph("embedder")


@pytest.mark.parametrize(
    ("wanted", "device", "precision"),
    [
        ("auto", "cpu", "int8"),
        ("auto", "cuda", "fp16"),
        ("fp16", "cuda", "fp16"),
        ("fp16", "cpu", "fp16"),
    ],
)
def test_the_precision_is_the_one_asked_for_or_the_best_for_the_device(
    tmp_path: Path, wanted: str, device: str, precision: str
):
    manifest = translation_manifest()
    manifest["precisions"][1]["name"] = "fp16"
    assert read_bundle(write(tmp_path, manifest), wanted, device).precision == precision


@pytest.mark.parametrize(
    ("wanted", "device", "message"),
    [
        ("fp16", "cpu", "no precision fp16 for cpu, .* the bundle has int8, fp32"),
        ("auto", "cuda", "no precision fp16 for cuda, which runs fp16"),
        ("fp32", "cuda", "no precision fp32 for cuda, which runs fp16"),
    ],
)
def test_a_precision_that_the_bundle_or_the_device_lacks_is_refused(
    directory: Path, wanted: str, device: str, message: str
):
    with pytest.raises(BundleError, match=message):
        read_bundle(directory, wanted, device)


REFUSED: dict[str, tuple[Change, str]] = {
    "a broken rule": (lambda m: m.pop("kind"), "kind is missing"),
    "another name": (lambda m: m.update(name="de-en"), "must be those of the folder, en-de/1"),
    "another version": (lambda m: m.update(version="2"), "must be those of the folder, en-de/1"),
    "a forced end token": (
        lambda m: m["decoding"].update(forces_eos_at_limit=True),
        "decoding.forces_eos_at_limit is set, which this server does not apply",
    ),
    "an unknown normalization of texts": (
        lambda m: m.update(text_normalization="TEXT_NORMALIZATION_OTHER"),
        "TEXT_NORMALIZATION_OTHER",
    ),
}


@pytest.mark.parametrize(("change", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_a_manifest_that_this_server_cannot_serve_is_refused(
    tmp_path: Path, change: Change, problem: str
):
    manifest = translation_manifest()
    change(manifest)
    directory = write(tmp_path, manifest)
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{problem}"):
        read_bundle(directory, "auto", "cpu")


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"name": "a", "name": "b"}', "{" * 5000])
def test_a_manifest_that_is_no_message_is_refused(directory: Path, text: str):
    (directory / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        read_bundle(directory, "auto", "cpu")


def test_a_manifest_that_is_no_text_is_refused(directory: Path):
    (directory / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError):
        read_bundle(directory, "auto", "cpu")


def test_a_huge_manifest_is_not_read(directory: Path):
    (directory / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(BundleError, match="larger than"):
        read_bundle(directory, "auto", "cpu")


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def altered(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"!")


def missing(file: Path) -> None:
    file.unlink()


def a_link(file: Path) -> None:
    elsewhere = file.parent.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def a_hard_link(file: Path) -> None:
    os.link(file, file.parent.parent / "elsewhere")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "attack", [truncated, altered, missing, a_link, a_hard_link, a_folder, a_pipe]
)
@pytest.mark.parametrize("name", ["tokenizer.json", "encoder.fp32.onnx", "weights.int8.bin"])
def test_a_file_that_is_not_what_the_manifest_says_is_found(
    directory: Path, name: str, attack: Callable[[Path], None]
):
    attack(directory / name)
    bundle = read_bundle(directory, "auto", "cpu")
    with pytest.raises(BundleError, match=name):
        bundle.check_files()


@pytest.mark.parametrize("attack", [missing, a_link, a_hard_link, a_folder, a_pipe])
def test_a_manifest_that_is_no_plain_file_is_not_read(
    directory: Path, attack: Callable[[Path], None]
):
    attack(directory / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(directory, "auto", "cpu")


def test_a_file_behind_a_linked_folder_is_found(tmp_path: Path):
    manifest = translation_manifest()
    manifest["files"][0]["path"] = "sub/tokenizer.json"
    manifest["source_tokenizer"] = manifest["target_tokenizer"] = "sub/tokenizer.json"
    directory = write(tmp_path, manifest)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(directory / "tokenizer.json", outside)
    (directory / "sub").symlink_to(outside)
    bundle = read_bundle(directory, "auto", "cpu")
    with pytest.raises(BundleError, match="sub: is a symbolic link"):
        bundle.check_files()


def an_extra_file(directory: Path) -> str:
    (directory / "weights.bin").write_bytes(b"unchecked")
    return "weights.bin"


def a_hidden_file(directory: Path) -> str:
    (directory / ".weights").write_bytes(b"unchecked")
    return ".weights"


def a_file_in_a_folder(directory: Path) -> str:
    (directory / "sub" / "folder").mkdir(parents=True)
    (directory / "sub" / "folder" / "manifest.json").write_bytes(b"unchecked")
    return "sub/folder/manifest.json"


def a_link_to_a_file(directory: Path) -> str:
    (directory / "weights.bin").symlink_to("/dev/zero")
    return "weights.bin"


def a_link_to_a_folder(directory: Path) -> str:
    (directory / "sub").symlink_to(directory.parent)
    return "sub"


def a_link_to_nothing(directory: Path) -> str:
    (directory / "later").symlink_to("nothing")
    return "later"


def an_extra_pipe(directory: Path) -> str:
    os.mkfifo(directory / "pipe")
    return "pipe"


@pytest.mark.parametrize(
    "add",
    [
        an_extra_file,
        a_hidden_file,
        a_file_in_a_folder,
        a_link_to_a_file,
        a_link_to_a_folder,
        a_link_to_nothing,
        an_extra_pipe,
    ],
)
def test_what_the_manifest_does_not_list_is_refused(directory: Path, add: Callable[[Path], str]):
    name = add(directory)
    with pytest.raises(BundleError, match=f"/{name}: is not listed in manifest.json$"):
        read_bundle(directory, "auto", "cpu").check_files()


def test_a_folder_that_cannot_be_looked_through_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    def scandir(path: str) -> Any:
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return original(path)

    (directory / "sub").mkdir()
    original = os.scandir
    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(BundleError, match="/sub: Permission denied$"):
        read_bundle(directory, "auto", "cpu").check_files()


def test_all_bundles_of_a_folder_are_found_or_those_asked_for(tmp_path: Path):
    for folder in ("en-de/1", "en-de/2", "bert/1", ".hidden/1", "Upper/1", "en-de/.tmp"):
        write(tmp_path, translation_manifest(), folder)
    (tmp_path / "empty" / "1").mkdir(parents=True)

    def found(*wanted: str) -> list[str]:
        directories = find_bundles(tmp_path, wanted)
        return [str(directory.relative_to(tmp_path)) for directory in directories]

    assert found() == ["bert/1", "en-de/1", "en-de/2"]
    assert found("en-de") == ["en-de/1", "en-de/2"]
    assert found("en-de/2", "bert") == ["bert/1", "en-de/2"]
    with pytest.raises(BundleError, match="no bundle en-fr"):
        found("bert", "en-fr")


def test_a_folder_without_bundles_is_said(tmp_path: Path):
    with pytest.raises(
        BundleError, match=r"/nothing: no bundles; expected <name>/<version>/manifest\.json$"
    ):
        find_bundles(tmp_path / "nothing", ())


def test_a_bundle_that_a_killed_rebuild_left_in_another_folder_is_named(tmp_path: Path, caplog):
    write(tmp_path, translation_manifest(), "bert/1")
    left = write(tmp_path, translation_manifest(), "en-de/.1.replaced")
    with pytest.raises(BundleError, match="no bundle en-de"):
        find_bundles(tmp_path, ["en-de"])
    assert f"event=bundle_left_by_killed_rebuild folder={left}" in caplog.text
