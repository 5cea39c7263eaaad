import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attendant_server.bundles import BundleError, find_bundles, read_bundle

Change = Callable[[dict[str, Any]], None]


def content_of(path: str) -> bytes:
    return f"the content of {path}".encode()


def step_of(path: str) -> dict[str, Any]:
    """A step without caches that decodes one token for rows of any sentences."""
    inputs = {
        "tokens": "tokens",
        "lengths": "lengths",
        "total_length": "total_length",
        "source_lengths": "source_lengths",
        "num_candidates": "num_candidates",
    }
    bias = {"positions": "bias_positions", "values": "bias_values"}
    state = {
        "type": "DATA_TYPE_FLOAT32",
        "shape": [2, 0, 16],
        "update": "STATE_UPDATE_GROWS",
    }
    outputs = {
        "candidate_ids": "candidate_ids",
        "candidate_log_probabilities": "candidate_log_probabilities",
    }
    return {
        "name": "decoder_step",
        "graph": {
            "path": path,
            "inputs": [*inputs, *bias.values(), "past_key_0", "cross_key_0"],
            "outputs": [*outputs, "present_key_0"],
        },
        "num_tokens": 1,
        "max_given_tokens": 1,
        "inputs": inputs | {"token_biases": [bias]},
        "outputs": outputs,
        "states": [
            state
            | {
                "input": "past_key_0",
                "outputs": ["present_key_0"],
                "owner": "STATE_OWNER_ROW",
            },
            state
            | {
                "input": "cross_key_0",
                "owner": "STATE_OWNER_SOURCE",
                "encoder_output": "cross_key_0",
            },
        ],
    }


def manifest_of(name: str = "en-de", version: str = "1") -> dict[str, Any]:
    files = ["tokenizer.json", "weights.int8.bin", "weights.fp32.bin"]
    precisions = []
    for precision in ("int8", "fp32"):
        graphs = {
            graph: f"{graph}.{precision}.onnx" for graph in ("encoder", "decoder_step", "scorer")
        }
        files += graphs.values()
        step = step_of(graphs.pop("decoder_step"))
        precisions.append(
            {
                "name": precision,
                "weights": [f"weights.{precision}.bin"],
                "steps": [step],
                **{
                    graph: {"path": path, "outputs": ["cross_key_0"]}
                    for graph, path in graphs.items()
                },
            }
        )
    return {
        "manifest_version": 2,
        "name": name,
        "version": version,
        "kind": "MODEL_KIND_TRANSLATION",
        "source_tokenizer": "tokenizer.json",
        "target_tokenizer": "tokenizer.json",
        "source_languages": ["en"],
        "target_languages": ["de"],
        "special_tokens": {"pad_id": 0, "eos_id": 2, "unk_id": 3},
        "decoding": {"start_token_id": 1},
        "architecture": {
            "d_model": 32,
            "source_embeddings": {"vocab_size": 100},
            "target_embeddings": {"vocab_size": 100},
            "encoder": {"groups": [{"num_layers": 1}]},
            "decoder": {"groups": [{"num_layers": 1}]},
        },
        "limits": {"max_source_tokens": 64, "max_target_tokens": 64},
        "precisions": precisions,
        "files": [
            {
                "path": path,
                "sha256": hashlib.sha256(content_of(path)).hexdigest(),
                "size_bytes": len(content_of(path)),
            }
            for path in files
        ],
    }


def write(root: Path, manifest: dict[str, Any], folder: str = "en-de/1") -> Path:
    directory = root / folder
    directory.mkdir(parents=True)
    for file in manifest_of()["files"]:
        (directory / file["path"]).write_bytes(content_of(file["path"]))
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path, manifest_of())


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
    manifest = manifest_of()
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


def set_path(path: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][0]["path"] = path
        manifest["source_tokenizer"] = manifest["target_tokenizer"] = path

    return change


def set_key(key: str, value: Any) -> Change:
    return lambda manifest: manifest.update({key: value})


def drop(*keys: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return change


def first_step(manifest: dict[str, Any]) -> dict[str, Any]:
    step: dict[str, Any] = manifest["precisions"][0]["steps"][0]
    return step


def set_step(**changes: Any) -> Change:
    return lambda manifest: first_step(manifest).update(changes)


def set_decoding(**changes: Any) -> Change:
    return lambda manifest: manifest["decoding"].update(changes)


def set_state(**changes: Any) -> Change:
    return lambda manifest: first_step(manifest)["states"][0].update(changes)


DEFECTS: dict[str, Change] = {
    "unknown field": set_key("nested", {}),
    "no version of the manifest": drop("manifest_version"),
    "a later version of the manifest": set_key("manifest_version", 3),
    "another name than the folder": set_key("name", "de-en"),
    "another version than the folder": set_key("version", "2"),
    "no kind": drop("kind"),
    "an unknown kind": set_key("kind", "MODEL_KIND_NOTHING"),
    "a field of version 1": set_key("source_language", "en"),
    "version 1 without sizes": set_key("manifest_version", 1),
    "no network": drop("architecture"),
    "a network without a decoder": drop("architecture", "decoder"),
    "no languages to read": set_key("source_languages", []),
    "no start of targets": drop("decoding"),
    "a suppressed token outside the vocabulary": set_decoding(suppressed_token_ids=[5, 100]),
    "a forced token": set_decoding(forced_token_ids=[5]),
    "a default beam": set_decoding(beam_size=4),
    "a default length penalty": set_decoding(length_penalty=0.0),
    "a normalization of texts": set_key("text_normalization", {"removes_invisible": True}),
    "a start outside the vocabulary": set_key("decoding", {"start_token_id": 100}),
    "no step": lambda m: m["precisions"][0].pop("steps"),
    "a step twice": lambda m: m["precisions"][0]["steps"].append(m["precisions"][0]["steps"][0]),
    "no step for beams": set_step(rows_per_sentence=1),
    "a step of two sentences' rows": set_step(rows_per_sentence=2),
    "a step of no tokens": set_step(num_tokens=0),
    "a step of many tokens": set_step(num_tokens=1000),
    "a step without an input": lambda m: first_step(m)["inputs"].pop("tokens"),
    "a step without candidates": lambda m: first_step(m)["outputs"].pop("candidate_ids"),
    "an input that the graph lacks": lambda m: first_step(m)["inputs"].update(tokens="other"),
    "an output that the graph lacks": lambda m: first_step(m)["graph"].pop("outputs"),
    "a shortlist without its rows": lambda m: first_step(m)["inputs"].update(shortlist="tokens"),
    "a state of no type": set_state(type="DATA_TYPE_UNSPECIFIED"),
    "a state of nobody": set_state(owner="STATE_OWNER_UNSPECIFIED"),
    "a state that is replaced": set_state(update="STATE_UPDATE_REPLACED"),
    "a state that does not grow": set_state(shape=[2, 4, 16]),
    "a huge state": set_state(shape=[2**31, 0, 16]),
    "a state of a source that nobody gives": lambda m: first_step(m)["states"][1].update(
        encoder_output="other"
    ),
    "no limits": drop("limits"),
    "no limit of targets": drop("limits", "max_target_tokens"),
    "a huge limit of sources": lambda m: m["limits"].update(max_source_tokens=65_537),
    "no end token": drop("special_tokens", "eos_id"),
    "a token outside the vocabulary": set_key(
        "special_tokens", {"pad_id": 0, "eos_id": 100, "unk_id": 3}
    ),
    "no tokenizer of targets": drop("target_tokenizer"),
    "no precision": drop("precisions"),
    "a precision without a graph": lambda m: m["precisions"][0].pop("scorer"),
    "a precision twice": lambda m: m["precisions"].append(m["precisions"][0]),
    "an unknown precision": lambda m: m["precisions"][0].update(name="int4"),
    "a file used but not listed": lambda m: m["files"].pop(),
    "a file listed twice": lambda m: m["files"].append(m["files"][0]),
    "the manifest among its files": set_path("manifest.json"),
    "an absolute path": set_path("/etc/passwd"),
    "a path to the parent": set_path("../2/tokenizer.json"),
    "a path through the parent": set_path("sub/../../tokenizer.json"),
    "a path with a dot": set_path("./tokenizer.json"),
    "an empty path": set_path(""),
    "an empty part of a path": set_path("sub//tokenizer.json"),
    "a path with a backslash": set_path("..\\tokenizer.json"),
    "a path with NUL": set_path("tokenizer.json\u0000"),
    "a path with a newline": set_path("tokenizer\n.json"),
    "a hash in capitals": lambda m: m["files"][0].update(sha256="A" * 64),
    "a short hash": lambda m: m["files"][0].update(sha256="ab"),
    "a negative size": lambda m: m["files"][0].update(size_bytes=-1),
}


@pytest.mark.parametrize("change", DEFECTS.values(), ids=DEFECTS.keys())
def test_a_defect_of_the_manifest_is_found(tmp_path: Path, change: Change):
    manifest = manifest_of()
    change(manifest)
    directory = write(tmp_path, manifest)
    with pytest.raises(BundleError, match=r"manifest\.json: "):
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
    (directory / "manifest.json").write_bytes(b" " * (1024 * 1024 + 1))
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
    manifest = manifest_of()
    set_path("sub/tokenizer.json")(manifest)
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
        write(tmp_path, manifest_of(), folder)
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
    with pytest.raises(BundleError, match="no bundles"):
        find_bundles(tmp_path / "nothing", ())
