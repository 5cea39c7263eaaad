"""Properties of the nodes of every graph that keep batching invisible."""

import numpy as np
import onnx
import pytest
from attendant_export.data.shortlists import Shortlists
from attendant_export.graphs.writer import write_embedding_graphs, write_translation_graphs
from attendant_manifest.rules import PRECISIONS

from tests.support.graphs import (
    load_graphs,
    tiny_bert,
    tiny_convolutional,
    tiny_experts,
    tiny_recurrent,
    tiny_ssru,
    tiny_transformer,
)

EACH_ROW_ALONE = {
    *("Add", "Abs", "Cast", "Div", "Gelu", "Less", "Max", "Min", "Mul", "Relu", "Sub", "Where"),
    *("Concat", "Expand", "Flatten", "Range", "Reshape", "Shape", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze", "Gather", "GatherElements", "ScatterND", "LessOrEqual"),
    *("Attention", "GroupQueryAttention", "Gemm", "MatMulIntegerToFloat"),
    *("QuantizeLinear", "DequantizeLinear", "Mod", "Neg", "Pad", "Sigmoid"),
    *("Tanh", "Exp", "And", "Equal", "GreaterOrEqual"),
}
OVER_AN_AXIS = {"LayerNormalization", "LogSoftmax", "Softmax", "TopK"}
OVER_AXES = {"ReduceMax", "ReduceSum"}
OF_PLACES = {"NonZero", "CumSum"}
"""Operators that work across rows, but on positions and not on values."""


@pytest.fixture(
    scope="module",
    params=["translation", "ssru", "recurrent", "convolutional", "experts", "embedding"],
)
def write(request):
    models = {
        "translation": lambda: tiny_transformer(True),
        "ssru": tiny_ssru,
        "recurrent": tiny_recurrent,
        "convolutional": tiny_convolutional,
        "experts": tiny_experts,
    }
    if request.param in models:
        model = models[request.param]()
        shortlists = Shortlists(np.arange(8, dtype=np.int32), np.ones((50, 4), np.int32))
        return lambda precision, folder: write_translation_graphs(
            model, precision, folder, shortlists=shortlists
        )
    return lambda *place: write_embedding_graphs(tiny_bert(True), *place)


@pytest.fixture(scope="module", params=PRECISIONS)
def graphs(request, write, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return list(load_graphs(folder, write(request.param, folder)))


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def constant(graph, name):
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    return onnx.numpy_helper.to_array(tensor)


def users(graph, node):
    """The nodes that use the result of ``node``."""
    return [user for user in graph.node if node.output[0] in user.input]


def made_by(graph, name):
    (node,) = (node for node in graph.node if name in node.output)
    return node


def graph_has(graph, name):
    """Whether a node computes the value."""
    return any(name in node.output for node in graph.node)


def check_listed(graph, gather):
    """``gather`` takes rows of a table for a shortlist."""
    assert gather.op_type == "Gather"
    padded = made_by(graph, gather.input[1])
    assert (padded.op_type, padded.input[0]) == ("Pad", "shortlist")


def derives_from_lengths(graph, name):
    """Whether a value depends only on the texts' lengths and the shape of the token ids."""
    if any(name == tensor.name for tensor in graph.initializer):
        return True
    if any(name == value.name for value in graph.input):
        return "lengths" in name
    node = made_by(graph, name)
    return node.op_type == "Shape" or all(derives_from_lengths(graph, x) for x in node.input)


def check_loop(graph, scan):
    """The loop runs over positions, and its body works on each row alone."""
    sequences = scan.input[-attributes(scan)["num_scan_inputs"] :]
    axes = attributes(scan).get("scan_input_axes")
    if axes is None:  # over the positions of keys, (source, batch, 1, d_model)
        (moved,) = (made_by(graph, name) for name in sequences)
        assert (moved.op_type, attributes(moved)["perm"][0]) == ("Transpose", 2), scan
    else:  # over those of (batch, length, d_model)
        assert set(axes) == {1}, scan
    for node in attributes(scan)["body"].node:
        if node.op_type == "ReduceMax":  # of the inputs of an int8 product
            assert constant(graph, node.input[1]).tolist() == [-1], node
        else:
            assert node.op_type in EACH_ROW_ALONE | {"Identity"}, node


def check_product_of_each_text(graph, product):
    """The product is of queries and keys, or of weights and values, of each text."""
    first, second = (
        "values" if any(name == value.name for value in graph.input) else made_by(graph, name)
        for name in product.input
    )
    kinds = {node if isinstance(node, str) else node.op_type for node in (first, second)}
    assert kinds <= {"Transpose", "Reshape", "Mul", "Softmax", "Cast", "Squeeze", "values"}, product
    assert not {tensor.name for tensor in graph.initializer} & {*product.input}, product


def check_choice_of_rows(graph, non_zero):
    """The rows that select an expert are taken out, and added to the same rows again."""
    (rows,) = users(graph, non_zero)
    *taken, places = users(graph, rows)
    assert {node.op_type for node in taken} == {"Gather"}, taken
    (added,) = users(graph, places)
    assert (places.op_type, added.op_type) == ("Unsqueeze", "ScatterND")
    assert (added.input[1], attributes(added)["reduction"]) == (places.output[0], b"add")


def test_no_node_reduces_over_the_rows(graphs):
    for graph in graphs:
        for node in graph.node:
            if node.op_type in OVER_AN_AXIS:
                assert attributes(node).get("axis", -1) == -1, node
            elif node.op_type == "NonZero" and not derives_from_lengths(graph, node.input[0]):
                check_choice_of_rows(graph, node)
            elif node.op_type in OF_PLACES:
                assert derives_from_lengths(graph, node.input[0]), node
            elif node.op_type in OVER_AXES:
                # In pooling, axis 1 of (batch, length, d_model) holds the tokens.
                assert constant(graph, node.input[1]).tolist() in ([-1], [1]), node
            elif node.op_type == "Scan":
                check_loop(graph, node)
            elif node.op_type == "GatherND":
                assert attributes(node)["batch_dims"] > 0, node
            elif node.op_type == "MatMul":
                check_product_of_each_text(graph, node)
            else:
                assert node.op_type in EACH_ROW_ALONE, node


def test_products_contract_the_columns_with_weights(graphs):
    for graph in graphs:
        weights = {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type in ("Gemm", "MatMulIntegerToFloat"):
                weight = node.input[1]
                if weight not in weights:  # the embedding table
                    chosen = made_by(graph, weight)
                    if chosen.op_type == "Transpose":
                        weight = chosen.input[0]
                    if weight not in weights:  # rows of the table for a shortlist
                        chosen = made_by(graph, weight)
                        check_listed(graph, chosen)
                        weight = chosen.input[0]
                assert weight in weights
                assert "transA" not in attributes(node)


def test_every_integer_product_has_a_scale_for_each_row(graphs):
    for graph in graphs:
        for product in graph.node:
            if product.op_type != "MatMulIntegerToFloat":
                continue
            quantize = made_by(graph, product.input[0])
            assert quantize.op_type == "QuantizeLinear"
            assert attributes(quantize)["axis"] == 0
            column = made_by(graph, quantize.input[1]).input[0]  # (rows, 1), before the squeeze
            reduction = made_by(graph, made_by(graph, column).input[0])
            if reduction.op_type == "Max":  # after a ReLU
                assert constant(graph, reduction.input[1]) == 0
                reduction = made_by(graph, reduction.input[0])
            if reduction.op_type == "Slice":  # where there may be no rows
                reduction = made_by(graph, reduction.input[0])
            assert reduction.op_type == "ReduceMax"
            assert constant(graph, reduction.input[1]).tolist() == [-1]
            np.testing.assert_array_equal(constant(graph, product.input[2]), 1)
            (rescaled,) = users(graph, product)
            by = rescaled.input[1]
            if graph_has(graph, by) and made_by(graph, by).op_type == "Gather":  # of a shortlist
                by = made_by(graph, by).input[0]
            if by.endswith(".scales"):  # per column, for the scores of the vocabulary
                (rescaled,) = users(graph, rescaled)
            assert (rescaled.op_type, rescaled.input[1]) == ("Mul", column)


def test_int8_has_no_other_products_with_weights(write, tmp_path):
    for graph in load_graphs(tmp_path, write("int8", tmp_path)):
        op_types = {node.op_type for node in graph.node}
        assert "MatMulIntegerToFloat" in op_types
        weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        # Products with a vector, which give one score, are fp32, and so are choices of experts.
        products = [node for node in graph.node if node.op_type == "Gemm"]
        products = [node for node in products if not node.input[1].endswith(".gate.weight")]
        assert all(weights[node.input[1]][0] == 1 for node in products)
        products = [node for node in graph.node if node.op_type == "MatMul"]
        assert not any(weights.keys() & {*node.input} for node in products)
