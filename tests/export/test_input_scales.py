"""Scales of the inputs of int8 products are those of the model's own inputs."""

import numpy as np
import onnx
import pytest
import torch
from attendant_export.graphs.input_scales import QUANTILE, measure_input_scales
from attendant_export.graphs.parameters import KEYS_VALUES, graph_parameters
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.verify.graph_sessions import TranslationGraphs

from tests.support.graphs import manifest_of, tiny_ssru, tiny_transformer

VOCAB = 50
MODELS = {
    "pre-norm": lambda: tiny_transformer(norm_first=True),
    "post-norm": lambda: tiny_transformer(norm_first=False),
    "SSRU": tiny_ssru,
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(3)
    return MODELS[request.param]().eval()


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 9, size=(40, 2))
    return [tuple(rng.integers(3, VOCAB, size=n).tolist() for n in both) for both in lengths]


def watched(model, pairs, names):
    """The largest absolute value of each token's outputs of some modules."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found[name].append(
                output.abs().amax(-1).flatten()
            )
        )
    with torch.inference_mode():
        for source, target in pairs:
            model(torch.tensor([source]), torch.tensor([target]))
    return {name: torch.cat(each).numpy() for name, each in found.items()}


def test_each_product_with_a_weight_has_a_scale(model, pairs):
    parameters = graph_parameters(model, model.architecture, 16)
    weights = {
        name.removesuffix(".weight")
        for name, array in parameters.items()
        if array.ndim == 2 and name.startswith(("encoder.", "decoder."))
    }
    scales = measure_input_scales(model, pairs)
    assert scales.keys() == weights
    assert KEYS_VALUES in scales
    assert all(scale > 0 for scale in scales.values())


def test_the_range_of_a_scale_holds_nearly_all_tokens(pairs):
    model = tiny_transformer(norm_first=True).eval()
    scales = measure_input_scales(model, pairs)
    norms = {
        "encoder.0.feed_forward_residual.norm": "encoder.0.feed_forward.0",
        "decoder.0.cross_attention_residual.norm": "decoder.0.cross_attention.query",
        "encoder_norm": KEYS_VALUES,
    }
    for name, largest in watched(model, pairs, norms).items():
        assert 127 * scales[norms[name]] == pytest.approx(np.quantile(largest, QUANTILE), rel=1e-5)


def test_graphs_with_scales_score_nearly_the_same_with_fewer_operators(model, pairs, tmp_path):
    scores, nodes = {}, {}
    for name, scales in (("rows", {}), ("fixed", measure_input_scales(model, pairs))):
        folder = tmp_path / name
        folder.mkdir()
        written = write_translation_graphs(model, "int8", folder, 16, input_scales=scales)
        encoder = onnx.load(folder / written.encoder.path, load_external_data=False)
        nodes[name] = len(encoder.graph.node)
        graphs = TranslationGraphs(folder, written, manifest_of(model))
        scores[name] = graphs.score(*map(list, zip(*pairs, strict=True)))
    assert nodes["fixed"] < 0.8 * nodes["rows"]
    for fixed, rows in zip(scores["fixed"], scores["rows"], strict=True):
        np.testing.assert_allclose(fixed, rows, rtol=0, atol=0.1)
