"""Smoothing of the inputs of int8 products in encoders with outlier channels."""

import numpy as np
import onnx
import pytest
import torch
from attendant.v1.architecture_pb2 import ACTIVATION_RELU
from attendant_export.bundle.parameters import fitting_parameters
from attendant_export.bundle.weights import read_weights
from attendant_export.graphs.builder import WeightFile
from attendant_export.graphs.quantization import SMOOTHING, Int8Layers
from attendant_export.graphs.smoothing import STRENGTH, input_ranges, smoothing_factors
from attendant_export.graphs.writer import write_embedding_graphs, write_graphs_of

from tests.support.graphs import open_session, run, tiny_bert

TEXTS = [[2, 5, 9, 33, 3], [2, 7, 7, 12, 40, 31, 22, 8, 3], [2, 49, 3], [2, 11, 30, 6, 17, 25, 3]]
OUTLIERS = slice(3, 5)
LINEARS = {
    f"encoder.{layer}.{name}"
    for layer in range(2)
    for name in ("self_attention.query_key_value", "feed_forward.0")
}


@pytest.fixture(scope="module")
def model():
    """An encoder whose layer norms give two channels 40 times the range of the others."""
    model = tiny_bert(norm_first=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("residual.norm.weight"):
                parameter[OUTLIERS] *= 40
            elif name.endswith(("query_key_value.weight", "feed_forward.0.weight")):
                parameter[:, OUTLIERS] /= 40
    return model


def written(model, folder, texts):
    folder.mkdir()
    return write_embedding_graphs(model, "int8", folder, max_positions=16, texts=texts)


def mean_difference(model, folder, graphs):
    """Of the mean-pooled vectors of single texts from those of the model, without the outliers."""
    session = open_session(folder, graphs.embedder)
    differences = []
    for ids in TEXTS:
        found = run(session, token_ids=np.array([ids]), lengths=np.array([len(ids)]))
        with torch.inference_mode():
            expected = model.pooled(torch.tensor([ids])).numpy()
        differences.append(np.delete(found["mean_pooled"] - expected, OUTLIERS, axis=1))
    return np.abs(differences).mean()


def test_the_ranges_are_those_of_all_texts_and_of_the_layers_after_norms(model):
    ranges = input_ranges(model, TEXTS)
    assert ranges.keys() == LINEARS
    one_by_one = [input_ranges(model, [ids]) for ids in TEXTS]
    for name in LINEARS:
        expected = np.max([each[name] for each in one_by_one], axis=0)
        np.testing.assert_array_equal(ranges[name], expected)
    first = ranges["encoder.1.self_attention.query_key_value"]
    assert first[OUTLIERS].min() > 5 * np.median(first)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_outlier_channels_cost_less_precision_with_smoothing(model, tmp_path):
    plain = mean_difference(model, tmp_path / "a", written(model, tmp_path / "a", ()))
    smooth = mean_difference(model, tmp_path / "b", written(model, tmp_path / "b", TEXTS))
    assert smooth < 0.6 * plain


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_precisions_are_not_smoothed(model, precision, tmp_path):
    graphs = write_embedding_graphs(model, precision, tmp_path, max_positions=16, texts=TEXTS)
    stored = read_weights(tmp_path, graphs)
    assert not any(name.endswith(SMOOTHING) for name in stored.arrays)


def test_stored_weights_give_the_same_graphs_and_the_parameters_of_the_model(model, tmp_path):
    graphs = written(model, tmp_path / "first", TEXTS)
    weights = read_weights(tmp_path / "first", graphs)
    assert {name for name in weights.arrays if name.endswith(SMOOTHING)} == {
        name + SMOOTHING for name in LINEARS
    }
    (tmp_path / "again").mkdir()
    again = write_graphs_of(weights, model.architecture, "int8", tmp_path / "again")
    for graph in (graphs.embedder, graphs.mlm_head):
        before = (tmp_path / "first" / graph.path).read_bytes()
        assert (tmp_path / "again" / graph.path).read_bytes() == before
    assert again.embedder == graphs.embedder

    restored = fitting_parameters("int8", weights, model.architecture)
    assert restored.keys() == model.state_dict().keys()
    for name in LINEARS:
        weight = model.state_dict()[f"{name}.weight"].numpy()
        factors = weights.arrays[name + SMOOTHING]
        steps = weights.arrays[f"{name}.weight.scales"][:, None] * factors
        assert (np.abs(restored[f"{name}.weight"].numpy() - weight) <= 0.5001 * steps).all()


def test_a_smoothed_relu_still_uses_all_levels(tmp_path):
    random = np.random.default_rng(2)
    weight = random.normal(size=(8, 32)).astype(np.float32)
    factors = random.uniform(0.5, 2, size=32).astype(np.float32)
    with WeightFile(tmp_path / "weights.bin") as weights:
        g = Int8Layers("g", weights, {"layer.weight": weight, "layer.smoothing": factors})
        x = g.activation_between(g.input("x", np.float32, "rows", 32), ACTIVATION_RELU)
        g.output("y", g.linear(x, "layer"), np.float32, "rows", 8)
        graph = g.write(tmp_path / "g.onnx")
    rows = random.normal(size=(5, 32)).astype(np.float32)
    found = run(open_session(tmp_path, graph), x=rows)["y"]
    np.testing.assert_allclose(found, np.maximum(rows, 0) @ weight.T, atol=0.2)
    nodes = onnx.load(tmp_path / graph.path, load_external_data=False).graph.node
    assert "Abs" not in {node.op_type for node in nodes}


def test_a_channel_that_was_quiet_gets_a_bounded_factor():
    parameters = {"a.weight": np.ones((2, 3), np.float32)}
    ranges = {"a": np.array([1, 0, 1e-6], np.float32)}
    loud, silent, quiet = smoothing_factors(ranges, parameters)["a.smoothing"]
    assert silent == quiet == pytest.approx(loud * 100**STRENGTH, rel=1e-5)


def test_channels_without_a_range_are_left_alone():
    weight = np.ones((2, 3), np.float32)
    parameters = {"a.weight": weight, "b.weight": np.zeros((2, 3), np.float32)}
    ranges = {"a": np.array([1, 0, 2], np.float32), "b": np.ones(3, np.float32)}
    factors = smoothing_factors(ranges, parameters)
    assert np.isfinite(factors["a.smoothing"]).all()
    assert (factors["a.smoothing"] > 0).all()
    np.testing.assert_array_equal(factors["b.smoothing"], 1)
