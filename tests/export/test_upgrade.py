"""An upgraded bundle of version 1 has a manifest of version 2 and is otherwise unchanged."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from attendant.v1.architecture_pb2 import NORM_POSITION_POST, NORM_POSITION_PRE
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.bundle.upgrade import upgrade_bundle
from attendant_export.bundle.verify import verify_bundle
from attendant_manifest import parse_manifest

from tests.support.altered import replace_file

ROOT = Path(__file__).parents[2]
BUNDLES = sorted((ROOT / "tests/recorded/bundles").glob("*/*"))


@pytest.fixture(params=BUNDLES, ids=lambda folder: folder.parent.name)
def bundle(request, tmp_path: Path) -> Path:
    folder: Path = request.param
    return Path(shutil.copytree(folder, tmp_path / folder.parent.name / folder.name))


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}


def test_an_upgraded_bundle_is_of_version_2_and_gives_its_reference_outputs(bundle: Path):
    before = files_of(bundle)

    assert "was of version 1 and is of version 2 now" in upgrade_bundle(bundle)

    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 2
    assert files_of(bundle) == before
    assert len(verify_bundle(bundle)) > 1


def test_only_facts_that_version_1_does_not_state_are_added(bundle: Path):
    in_memory = parse_manifest((bundle / "manifest.json").read_text(encoding="utf-8"))
    upgrade_bundle(bundle)
    written = read_manifest(bundle)

    is_pre_norm = written.architecture.HasField("decoder")  # the trainer's default
    expected = NORM_POSITION_PRE if is_pre_norm else NORM_POSITION_POST
    assert written.architecture.encoder.norm_position == expected
    positions = written.architecture.source_embeddings.positions
    assert positions.num_positions == (0 if is_pre_norm else 64)
    assert written.architecture.source_embeddings.num_token_types == (0 if is_pre_norm else 2)
    for manifest in (in_memory, written):
        manifest.architecture.source_embeddings.positions.ClearField("num_positions")
        manifest.architecture.source_embeddings.ClearField("num_token_types")
        for name in ("encoder", "decoder"):
            stack = getattr(manifest.architecture, name)
            stack.ClearField("norm_position")
            stack.ClearField("has_final_norm")
    assert written == in_memory


def test_a_bundle_of_version_2_stays_as_it_is(bundle: Path):
    upgrade_bundle(bundle)
    before = (bundle / "manifest.json").read_bytes()
    assert "is of version 2 already" in upgrade_bundle(bundle)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_damaged_bundle_is_not_upgraded(bundle: Path):
    before = (bundle / "manifest.json").read_bytes()
    (bundle / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="tokenizer.json has another SHA-256"):
        upgrade_bundle(bundle)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_bundle_that_breaks_a_rule_is_not_upgraded(bundle: Path):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["special_tokens"]["unk_id"] = 2**31
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="special_tokens.unk_id is outside the vocabulary"):
        upgrade_bundle(bundle)
    assert json.loads(path.read_text()) == manifest


def test_the_folder_may_be_the_working_directory(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(bundle)
    upgrade_bundle(Path())
    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 2


def encoder_of(folder: Path) -> str:
    """The file of the graph that states the facts that version 1 lacks."""
    graphs = read_manifest(folder).precisions[0]
    return graphs.encoder.path or graphs.embedder.path


def change_graph(folder: Path, name: str, change: Callable[[onnx.GraphProto], object]) -> None:
    model = onnx.load(folder / name, load_external_data=False)
    change(model.graph)
    replace_file(folder, name, model.SerializeToString())


def without(name: str) -> Callable[[onnx.GraphProto], object]:
    """Remove a parameter from a graph."""

    def change(graph: onnx.GraphProto) -> None:
        [found] = (each for each in graph.initializer if each.name == name)
        graph.initializer.remove(found)

    return change


def check_refused(folder: Path, *words: str) -> None:
    """Check that an upgrade is refused with all ``words`` and leaves the folder as it is."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BundleError) as error:
        upgrade_bundle(folder)
    assert all(word in str(error.value) for word in words), error.value
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("content", [b"no graph", b"\xff" * 100], ids=["text", "bytes"])
def test_a_file_that_is_not_onnx_is_named(content: bytes, bundle: Path):
    replace_file(bundle, encoder_of(bundle), content)
    check_refused(bundle, f"{encoder_of(bundle)} is not an ONNX file")


def test_an_empty_graph_does_not_pass_for_post_norm(bundle: Path):
    graph = onnx.helper.make_graph([], "empty", [], [])
    content = onnx.helper.make_model(graph).SerializeToString()
    replace_file(bundle, encoder_of(bundle), content)
    check_refused(bundle, encoder_of(bundle), "the graph does not use the parameter ")


def test_parameters_that_no_node_uses_do_not_count(bundle: Path):
    change_graph(bundle, encoder_of(bundle), lambda graph: graph.ClearField("node"))
    check_refused(bundle, encoder_of(bundle), "the graph does not use the parameter ")


@pytest.mark.parametrize(
    "name",
    [
        "encoder.0.self_attention_residual.norm.weight",
        "encoder.1.feed_forward_residual.norm.weight",
    ],
)
def test_a_missing_norm_is_named(name: str, bundle: Path):
    change_graph(bundle, encoder_of(bundle), without(name))
    check_refused(bundle, encoder_of(bundle), f"the graph does not use the parameter {name}")


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "tests/recorded/bundles/tiny-bert/1", tmp_path / "1"))


@pytest.fixture
def translator(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "tests/recorded/bundles/tiny-en-de/1", tmp_path / "1"))


def test_a_missing_table_of_positions_is_named(bert: Path):
    change_graph(bert, "embedder.fp32.onnx", without("position_embedding.weight"))
    check_refused(
        bert,
        "embedder.fp32.onnx: the graph does not use the parameter position_embedding.weight",
    )


@pytest.mark.parametrize("dims", [[64], [64, 31], [64, 32, 1], []])
def test_a_table_of_positions_of_another_shape_is_named(dims: list[int], bert: Path):
    def reshape(graph: onnx.GraphProto) -> None:
        [table] = (each for each in graph.initializer if each.name == "position_embedding.weight")
        table.dims[:] = dims

    change_graph(bert, "embedder.fp32.onnx", reshape)
    check_refused(
        bert,
        f"embedder.fp32.onnx: position_embedding.weight has the shape {tuple(dims)}, not any x 32",
    )


def step_of(folder: Path) -> str:
    return read_manifest(folder).precisions[0].steps[0].graph.path


def test_the_norms_of_the_decoder_are_read_from_its_own_graph(translator: Path):
    name = "decoder.1.feed_forward_residual.norm.weight"
    change_graph(translator, step_of(translator), without(name))
    check_refused(translator, step_of(translator), f"does not use the parameter {name}")


@pytest.mark.parametrize("version", [2.0, "2"])
def test_every_spelling_of_version_2_is_upgraded_already(version: object, bundle: Path):
    upgrade_bundle(bundle)
    path = bundle / "manifest.json"
    content = json.loads(path.read_text()) | {"manifest_version": version}
    content["architecture"]["encoder"]["has_final_norm"] = False
    path.write_text(json.dumps(content))
    assert "is of version 2 already" in upgrade_bundle(bundle)
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_manifest_keeps_its_mode(mode: int, bundle: Path):
    path = bundle / "manifest.json"
    path.chmod(mode)
    upgrade_bundle(bundle)
    assert json.loads(path.read_text())["manifest_version"] == 2
    assert path.stat().st_mode & 0o7777 == mode


def test_a_folder_that_is_a_mount_point_can_be_upgraded(bundle: Path, monkeypatch):
    def replace(source: Path, target: Path) -> Path:
        if source.parent.resolve() != target.parent.resolve():
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(source))
        return rename(source, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "replace", replace)
    upgrade_bundle(bundle)
    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 2
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("step", ["write_text", "chmod", "replace"])
def test_an_upgrade_that_fails_leaves_no_file(step: str, bundle: Path, monkeypatch):
    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(Path, step, fail)
        with pytest.raises(OSError, match="No space left"):
            upgrade_bundle(bundle)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


def test_the_file_of_an_upgrade_that_was_killed_is_removed(bundle: Path):
    (bundle / ".manifest.json.new").write_text("half a mani")
    upgrade_bundle(bundle)
    assert len(verify_bundle(bundle)) > 1


def test_a_folder_with_the_name_of_the_new_manifest_is_refused(bundle: Path):
    (bundle / ".manifest.json.new").mkdir()
    with pytest.raises(BundleError, match=r"\.manifest\.json\.new is a folder: an upgrade needs"):
        upgrade_bundle(bundle)


def test_the_new_manifest_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []

    def record(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def recorded(*arguments: object) -> object:
            events.append(name)
            return call(*arguments)

        return recorded

    monkeypatch.setattr("os.fsync", record("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", record("replace", Path.replace))
    upgrade_bundle(bundle)
    assert events == ["sync", "replace"]
