import numpy as np
import onnx
import pytest
from attendant.v1.architecture_pb2 import ACTIVATION_RELU
from attendant_export.graphs.builder import WeightFile
from attendant_export.graphs.quantization import Int8Layers, quantize_columns

from tests.support.graphs import open_session, run

INPUTS, OUTPUTS = 512, 48


@pytest.fixture
def parameters():
    random = np.random.default_rng(3)
    return {
        "layer.weight": random.normal(size=(OUTPUTS, INPUTS)).astype(np.float32),
        "layer.bias": random.normal(size=OUTPUTS).astype(np.float32),
        "other.weight": random.normal(size=(OUTPUTS, INPUTS)).astype(np.float32),
        "other.bias": random.normal(size=OUTPUTS).astype(np.float32),
    }


@pytest.fixture
def rows():
    return np.random.default_rng(5).normal(size=(17, INPUTS)).astype(np.float32)


class Product:
    """A graph of int8 linear layers that share one input."""

    def __init__(self, folder, parameters, layers=("layer",), relu=False):
        with WeightFile(folder / "weights.bin") as weights:
            g = Int8Layers("product", weights, parameters)
            x = g.input("x", np.float32, "rows", INPUTS)
            x = g.activation_between(x, ACTIVATION_RELU) if relu else x
            for name in layers:
                g.output(name, g.linear(x, name), np.float32, "rows", OUTPUTS)
            graph = g.write(folder / "product.onnx")
        self.nodes = list(onnx.load(folder / graph.path, load_external_data=False).graph.node)
        self.session = open_session(folder, graph)

    def __call__(self, x):
        return run(self.session, x=x)["layer"]


def quantized_product(x, parameters):
    """The expected product, computed in 64-bit integers."""
    scales = np.maximum(np.abs(x).max(axis=1, keepdims=True) * np.float32(1 / 127), 1e-12)
    weight, column_scales = quantize_columns(parameters["layer.weight"])
    integers = np.rint(x / scales).astype(np.int64) @ weight.T.astype(np.int64)
    return integers * column_scales * scales + parameters["layer.bias"]


def test_columns_are_within_half_a_step_of_the_weights(parameters):
    weight = parameters["layer.weight"]
    values, scales = quantize_columns(weight)
    assert values.shape == (OUTPUTS, INPUTS)
    assert values.dtype == np.int8
    restored = values * scales[:, None]
    assert (np.abs(restored - weight) <= scales[:, None] * 0.5001).all()


@pytest.mark.parametrize("num_inputs", [INPUTS, INPUTS - 1])
def test_neighbours_in_a_column_fit_16_bits_together(parameters, num_inputs):
    values, _ = quantize_columns(parameters["layer.weight"][:, :num_inputs])
    sizes = np.abs(values.astype(np.int64))
    assert sizes.max() <= 127
    pairs = sizes[:, : num_inputs // 2 * 2].reshape(OUTPUTS, -1, 2).sum(axis=2)
    assert pairs.max() * 255 <= 32767
    assert pairs.max() >= 125, "the step is larger than it need be"


def test_a_column_of_zeros_stays_zero():
    values, scales = quantize_columns(np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(values, 0)
    assert (scales > 0).all()


def test_products_are_those_of_the_integers(tmp_path, parameters, rows):
    found = Product(tmp_path, parameters)(rows)
    np.testing.assert_allclose(found, quantized_product(rows, parameters), rtol=1e-5, atol=1e-4)


def test_products_at_full_range_do_not_saturate(tmp_path, parameters):
    sign = np.where(np.arange(INPUTS) % 2, 1, -1).astype(np.float32)
    # Every pair has the largest allowed sum, in one of its bytes or shared by both.
    even = np.where(np.arange(INPUTS) % 2, 0, 127 / 64).astype(np.float32)
    ones = np.ones(INPUTS, np.float32)
    parameters["layer.weight"] = np.stack([sign, ones, even, -even] * 12)
    x = np.stack([sign, -sign, ones])
    found = Product(tmp_path, parameters)(x) - parameters["layer.bias"]
    np.testing.assert_allclose(found, x @ parameters["layer.weight"].T, rtol=0.02, atol=1e-2)


@pytest.mark.parametrize("relu", [False, True])
def test_a_row_is_the_same_beside_any_other_rows(tmp_path, parameters, rows, relu):
    product = Product(tmp_path, parameters, relu=relu)
    together = product(rows)
    louder = rows * 50
    louder[4] = rows[4]
    np.testing.assert_array_equal(product(rows[4:5])[0], together[4])
    np.testing.assert_array_equal(product(louder)[4], together[4])


def test_a_row_of_zeros_gives_the_bias(tmp_path, parameters, rows):
    rows[2] = 0
    np.testing.assert_array_equal(Product(tmp_path, parameters)(rows)[2], parameters["layer.bias"])


def test_a_relus_output_uses_all_levels(tmp_path, parameters, rows):
    exact = np.maximum(rows, 0) @ parameters["layer.weight"].T + parameters["layer.bias"]
    (tmp_path / "relu").mkdir()
    from_relu = Product(tmp_path / "relu", parameters, relu=True)(rows)
    np.testing.assert_allclose(from_relu, exact, atol=1.5)
    plain = Product(tmp_path, parameters)(np.maximum(rows, 0))
    # Both sides include the rounding of weights; exact weights would add a factor of 2.
    assert np.abs(from_relu - exact).mean() < 0.95 * np.abs(plain - exact).mean()


def test_an_input_is_quantized_once_for_all_products(tmp_path, parameters):
    nodes = Product(tmp_path, parameters, layers=("layer", "other")).nodes
    op_types = [node.op_type for node in nodes]
    assert op_types.count("QuantizeLinear") == 1
    assert op_types.count("MatMulIntegerToFloat") == 2


@pytest.mark.parametrize("relu", [False, True])
def test_rows_with_a_fixed_scale_are_cut_off_at_its_range(tmp_path, parameters, rows, relu):
    parameters["layer.input_scale"] = np.array(2 / 127, np.float32)
    expected = {k: parameters[k] for k in ("layer.weight", "layer.bias")}
    rows[3] *= 40  # beyond the range
    found = Product(tmp_path, parameters, relu=relu)(rows)
    step, levels = (2 / 255, (0, 255)) if relu else (2 / 127, (-128, 127))
    integers = np.rint(rows / np.float32(step)).clip(*levels)
    weight, column_scales = quantize_columns(expected["layer.weight"])
    product = integers @ weight.T.astype(np.int64) * column_scales * step
    np.testing.assert_allclose(found, product + expected["layer.bias"], rtol=1e-3, atol=2e-2)


def test_a_product_with_a_fixed_scale_has_two_nodes(tmp_path, parameters, rows):
    parameters["layer.input_scale"] = np.array(2 / 127, np.float32)
    product = Product(tmp_path, parameters)
    assert [node.op_type for node in product.nodes] == ["QuantizeLinear", "MatMulIntegerToFloat"]
    together = product(rows)
    np.testing.assert_array_equal(product(rows[4:5])[0], together[4])


@pytest.mark.parametrize("has_fixed_scale", [False, True])
def test_scores_of_a_vocabulary_include_the_bias(tmp_path, parameters, rows, has_fixed_scale):
    if has_fixed_scale:
        parameters["layer.input_scale"] = np.array(4 / 127, np.float32)
    found = scores_of(
        tmp_path,
        parameters,
        rows,
        lambda g, x: g.vocabulary_products(x, "layer.weight", "layer.bias"),
    )
    exact = rows @ parameters["layer.weight"].T + parameters["layer.bias"]
    np.testing.assert_allclose(found, exact, atol=2)


@pytest.mark.parametrize("fixed", [None, 3.0], ids=["rows", "fixed"])
def test_scores_of_listed_tokens_are_those_of_the_whole_vocabulary(
    tmp_path, parameters, rows, fixed
):
    listed = np.array([4, 0, 40])
    given = dict(parameters)
    if fixed:
        given["layer.input_scale"] = np.array(fixed / 127, np.float32)
    every = scores_of(tmp_path, given, rows, lambda g, x: g.vocabulary_products(x, "layer.weight"))
    found = scores_of(
        tmp_path,
        given,
        rows,
        lambda g, x: g.listed_products(x, "layer.weight", g.constant(listed)),
    )
    np.testing.assert_allclose(found, every[:, listed], rtol=1e-5, atol=1e-6)


def scores_of(tmp_path, parameters, rows, products):
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Int8Layers("scores", weights, parameters)
        x = g.input("x", np.float32, "rows", INPUTS)
        g.output("scores", products(g, x), np.float32, "rows", "scores")
        graph = g.write(tmp_path / "scores.onnx")
    return run(open_session(tmp_path, graph), x=rows)["scores"]


def test_an_embedding_is_its_column_of_the_table(tmp_path, parameters):
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Int8Layers("lookup", weights, parameters)
        token_ids = g.input("token_ids", np.int64, "rows")
        g.output("x", g.embed(token_ids, "layer.weight"), np.float32, "rows", INPUTS)
        graph = g.write(tmp_path / "lookup.onnx")
    ids = np.array([3, 0, 47, 3])
    values, scales = quantize_columns(parameters["layer.weight"])
    expected = (values * scales[:, None])[ids]
    found = run(open_session(tmp_path, graph), token_ids=ids)["x"]
    np.testing.assert_array_equal(found, expected)
