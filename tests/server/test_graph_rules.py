"""Graphs with anything that the exporter does not write are refused before they are loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from attendant_export.bundle.manifest import describe_file
from attendant_export.graphs.writer import write_translation_graphs
from attendant_server.bundles import Bundle, BundleError, find_bundles, read_bundle
from attendant_server.runtime import graph_rules
from attendant_server.runtime.graph_rules import check_graphs
from onnx import TensorProto, helper

from tests.support.altered import replace_file
from tests.support.graphs import manifest_of, tiny_ssru

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests/recorded/bundles/tiny-en-de/1"
COMMITTED = [
    *find_bundles(ROOT / "bundles", ()),
    *find_bundles(ROOT / "tests/recorded/bundles", ()),
    *find_bundles(ROOT / "tests/data/manifest-1", ()),
]
GRAPH = "encoder.fp32.onnx"
INT64_MAX = 2**63 - 1


def bundle_in(folder: Path) -> Bundle:
    return read_bundle(folder, "fp32", "cpu")


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.parent.name)
def test_graphs_of_the_exporter_follow_the_rules(folder: Path):
    for precision in read_bundle(folder, "auto", "cpu").manifest.precisions:
        check_graphs(read_bundle(folder, precision.name, "cpu"))


def test_graphs_with_loops_of_the_exporter_follow_the_rules(tmp_path: Path):
    model = tiny_ssru()
    manifest = manifest_of(model)
    manifest.precisions.add().CopyFrom(write_translation_graphs(model, "fp32", tmp_path, 16))
    manifest.files.append(describe_file(tmp_path, "weights.fp32.bin"))
    scorer = onnx.load(tmp_path / "scorer.fp32.onnx", load_external_data=False)
    assert "Scan" in {node.op_type for node in scorer.graph.node}
    check_graphs(Bundle(tmp_path, manifest, "fp32"))


def add_node(operator: str, domain: str = "", **attributes: Any) -> Callable[..., None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(operator, [], ["x"], domain=domain, **attributes))

    return change


def weight_of(model: onnx.ModelProto) -> TensorProto:
    return next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)


def external(**entries: object) -> Callable[..., None]:
    """Change entries of a weight's external data; None removes an entry."""

    def change(model: onnx.ModelProto) -> None:
        tensor = weight_of(model)
        found = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in found.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))

    return change


def constant(**fields: Any) -> Callable[..., None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(TensorProto(name="added", **fields))

    return change


def add_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Loop", [], ["y"])
    imports = [helper.make_opsetid("", 24)]
    model.functions.append(helper.make_function("own", "Hidden", [], ["y"], [node], imports))


def add_sparse_initializer(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(dims=[2**40])


def add_training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def import_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def body_with(*operators: str) -> onnx.GraphProto:
    nodes = [helper.make_node(each, [], [f"out_{each}"]) for each in operators]
    return helper.make_graph(nodes, "body", [], [])


def scan_in_scan(model: onnx.ModelProto) -> None:
    inner = body_with("Scan")
    inner.node[0].attribute.append(helper.make_attribute("body", body_with("Add")))
    add_node("Scan", body=inner)(model)


def repeat_location(model: onnx.ModelProto) -> None:
    weight_of(model).external_data.add(key="location", value="/etc/passwd")


def external_with_data(model: onnx.ModelProto) -> None:
    weight_of(model).raw_data = b"1234"


def shape_beyond_the_data(model: onnx.ModelProto) -> None:
    weight_of(model).dims[0] = INT64_MAX


def tensor_attribute(model: onnx.ModelProto) -> None:
    add_node("Add", value=helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]))(model)


FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING
REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "a loop": (add_node("Loop"), "the operator 'Loop' is not supported"),
    "a condition": (add_node("If"), "the operator 'If' is not supported"),
    "another operator of ONNX": (add_node("ConstantOfShape"), "'ConstantOfShape' is not"),
    "a random operator": (add_node("RandomNormal"), "'RandomNormal' is not supported"),
    "another operator of Microsoft": (
        add_node("QAttention", "com.microsoft"),
        "the operator 'com.microsoft.QAttention' is not supported",
    ),
    "an operator in the wrong domain": (add_node("Add", "com.microsoft"), "com.microsoft.Add"),
    "an operator of another domain": (add_node("Add", "own"), "the operator 'own.Add'"),
    "the other name of the domain": (add_node("Loop", "ai.onnx"), "'ai.onnx.Loop' is not"),
    "another domain": (import_domain, "operators of the domain 'ai.onnx.ml' are not supported"),
    "an operator in a body": (add_node("Scan", body=body_with("Add", "Loop")), "'Loop' is not"),
    "a loop in a loop": (scan_in_scan, "has a loop in a loop"),
    "several bodies": (add_node("Scan", bodies=[body_with("Loop")]), "field graphs of Attribute"),
    "functions": (add_function, "uses the field functions of ModelProto"),
    "sparse initializers": (add_sparse_initializer, "uses the field sparse_initializer of Graph"),
    "training": (add_training, "uses the field training_info of ModelProto"),
    "a tensor as an attribute": (tensor_attribute, "uses the field t of AttributeProto"),
    "weights in a parent folder": (external(location="../weights.fp32.bin"), "no file of weights"),
    "weights at an absolute path": (external(location="/etc/passwd"), "'/etc/passwd', which is no"),
    "weights by a detour": (external(location="a/../weights.fp32.bin"), "no file of weights"),
    "weights of another precision": (external(location="weights.int8.bin"), "no file of weights"),
    "a file that is listed": (external(location="tokenizer.json"), "no file of weights"),
    "a device": (external(location="/dev/zero"), "no file of weights"),
    "memory of the process": (external(location="*/_ORT_MEM_ADDR_/*"), "no file of weights"),
    "no location": (external(location=None), "must have a location, an offset and a length"),
    "no length": (external(length=None), "must have a location, an offset and a length"),
    "a checksum": (external(checksum="00"), "must have a location, an offset and a length"),
    "two locations": (repeat_location, "external data twice"),
    "an offset after the end": (external(offset=10**12), "after the end of weights.fp32.bin"),
    "an offset beyond 64 bits": (external(offset=10**30), "must be whole numbers"),
    "a negative offset": (external(offset=-64), "must be whole numbers"),
    "an offset that is no number": (external(offset="0x40"), "must be whole numbers"),
    "another length": (external(length=4), "has 4 bytes of external data instead of"),
    "a shape beyond the data": (shape_beyond_the_data, "bytes of external data instead of"),
    "data here and there": (external_with_data, "must have a location, an offset and a length"),
    "a constant without data": (constant(data_type=FLOAT, dims=[2**40]), "has 0 bytes of data"),
    "too much data": (constant(data_type=FLOAT, dims=[1], raw_data=b"12345"), "5 bytes of data"),
    "a negative dimension": (constant(data_type=FLOAT, dims=[-1]), "has a negative dimension"),
    "texts": (constant(data_type=STRING, dims=[1], string_data=[b"a"]), "uses the field number 6"),
    "an unknown type": (constant(data_type=99, dims=[]), "the type 99 is not supported"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_graph_that_breaks_a_rule_is_refused_by_its_name(
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], object],
    reason: str,
):
    folder = shutil.copytree(BUNDLE, tmp_path / "tiny-en-de" / "1")
    model = onnx.load(folder / GRAPH, load_external_data=False)
    change(model)
    replace_file(folder, GRAPH, model.SerializeToString())
    with pytest.raises(BundleError, match=f"/{GRAPH}: ") as error:
        check_graphs(bundle_in(folder))
    assert reason in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x0a" * 1000, b"{}"])
def test_a_file_that_is_no_graph_does_not_pass_unnoticed(tmp_path: Path, content: bytes):
    folder = shutil.copytree(BUNDLE, tmp_path / "tiny-en-de" / "1")
    replace_file(folder, GRAPH, content)
    if content:  # An empty file is a message without nodes, which ONNX Runtime refuses.
        with pytest.raises(BundleError, match=f"/{GRAPH}: "):
            check_graphs(bundle_in(folder))


@pytest.mark.parametrize("limit", ["MAX_GRAPH_BYTES", "MAX_NODES", "MAX_VALUES"])
def test_larger_graphs_than_the_limits_are_refused(monkeypatch: pytest.MonkeyPatch, limit: str):
    monkeypatch.setattr(graph_rules, limit, 1)
    with pytest.raises(BundleError, match=r"(larger|more) than 1 "):
        check_graphs(bundle_in(BUNDLE))
