import numpy as np
import onnx
import pytest
from attendant_export.graph_builder import WeightFile
from attendant_export.graph_layers import Network
from attendant_export.quantization import Int8Layers, quantize_columns

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
    """A graph of nothing but int8 linear layers of one input."""

    def __init__(self, folder, parameters, layers=("layer",), relu=False):
        network = Network(
            parameters=parameters,
            d_model=INPUTS,
            num_heads=1,
            norm_first=True,
            layer_norm_epsilon=1e-5,
            activation="Relu",
        )
        with WeightFile(folder / "weights.bin") as weights:
            g = Int8Layers("product", weights, network)
            x = g.input("x", np.float32, "rows", INPUTS)
            x = g.op("Relu", x) if relu else x
            for name in layers:
                g.output(name, g.linear(x, name), np.float32, "rows", OUTPUTS)
            graph = g.write(folder / "product.onnx")
        self.nodes = list(onnx.load(folder / graph.path, load_external_data=False).graph.node)
        self.session = open_session(folder, graph)

    def __call__(self, x):
        return run(self.session, x=x)["layer"]


def quantized_product(x, parameters):
    """What the recipe says, in 64-bit integers."""
    scales = np.maximum(np.abs(x).max(axis=1, keepdims=True) * np.float32(1 / 127), 1e-12)
    weight, column_scales = quantize_columns(parameters["layer.weight"])
    integers = np.rint(x / scales).astype(np.int64) @ (weight.astype(np.int64) - 128)
    return integers * column_scales * scales + parameters["layer.bias"]


def test_columns_are_within_half_a_step_of_the_weights(parameters):
    weight = parameters["layer.weight"]
    values, scales = quantize_columns(weight)
    assert values.shape == (INPUTS, OUTPUTS)
    assert values.dtype == np.uint8
    assert values.min() >= 1
    restored = (values.astype(np.float32) - 128) * scales
    assert (np.abs(restored - weight.T) <= scales * 0.5001).all()


def test_a_column_of_zeros_stays_zero():
    values, scales = quantize_columns(np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(values, 128)
    assert (scales > 0).all()


def test_products_are_those_of_the_integers(tmp_path, parameters, rows):
    found = Product(tmp_path, parameters)(rows)
    np.testing.assert_allclose(found, quantized_product(rows, parameters), rtol=1e-5, atol=1e-4)


def test_products_at_full_range_do_not_saturate(tmp_path, parameters):
    sign = np.where(np.arange(INPUTS) % 2, 1, -1).astype(np.float32)
    parameters["layer.weight"] = np.stack([sign] * 24 + [np.ones(INPUTS, np.float32)] * 24)
    x = np.stack([sign, -sign, np.ones_like(sign)])
    found = Product(tmp_path, parameters)(x) - parameters["layer.bias"]
    expected = [[INPUTS] * 24 + [0] * 24, [-INPUTS] * 24 + [0] * 24, [0] * 24 + [INPUTS] * 24]
    np.testing.assert_allclose(found, expected, atol=1e-3)


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
    plain = Product(tmp_path, parameters)(np.maximum(rows, 0))
    # The weights' own rounding is in both; exact weights would show a factor of 2.
    assert np.abs(from_relu - exact).mean() < 0.95 * np.abs(plain - exact).mean()


def test_an_input_is_quantized_once_for_all_products(tmp_path, parameters):
    nodes = Product(tmp_path, parameters, layers=("layer", "other")).nodes
    op_types = [node.op_type for node in nodes]
    assert op_types.count("QuantizeLinear") == 1
    assert op_types.count("MatMulIntegerToFloat") == 2


def test_an_embedding_is_its_column_of_the_table(tmp_path, parameters):
    network = Network(parameters, INPUTS, 1, True, 1e-5, "Relu")
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Int8Layers("lookup", weights, network)
        token_ids = g.input("token_ids", np.int64, "rows")
        g.output("x", g.embed(token_ids, "layer.weight"), np.float32, "rows", INPUTS)
        graph = g.write(tmp_path / "lookup.onnx")
    ids = np.array([3, 0, 47, 3])
    values, scales = quantize_columns(parameters["layer.weight"])
    expected = ((values.astype(np.float32) - 128) * scales).T[ids]
    found = run(open_session(tmp_path, graph), token_ids=ids)["x"]
    np.testing.assert_array_equal(found, expected)
