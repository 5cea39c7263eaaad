"""Attention graphs give the weights of every layer and head, as the model and its original do."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from attendant_export.bundle.manifest import read_manifest
from attendant_export.graphs.writer import write_embedding_graphs, write_translation_graphs
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.verify import attention
from attendant_export.verify.alignment import cross_attention
from attendant_export.verify.attention import pair_attention, text_attention
from attendant_export.verify.graph_sessions import GraphSession, ParityError

from tests.support.graphs import open_session, run, tiny_bert, tiny_ssru, tiny_transformer

SOURCE, TARGET = [7, 7, 12, 40, 31, 22, 8, 2], [23, 42, 9, 2]
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}
PAIRS = {
    "pre-norm": lambda: tiny_transformer(True),
    "post-norm": lambda: tiny_transformer(False),
    "ssru": tiny_ssru,
}


@pytest.fixture(scope="module", params=["fp32", "int8", "fp16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module", params=PAIRS)
def pair(request, precision, tmp_path_factory):
    """A model of pairs with the folder and the description of its graphs."""
    model, folder = PAIRS[request.param](), tmp_path_factory.mktemp("graphs")
    return model, folder, write_translation_graphs(model, precision, folder)


def weights_of(model: EncoderDecoder, folder: Path, graphs) -> dict[str, np.ndarray]:
    target_in = [model.tokens.bos_id, *TARGET[:-1]]
    session = open_session(folder, graphs.attention)
    return run(session, source=np.array([SOURCE]), target_in=np.array([target_in]))


def test_pairs_have_the_weights_of_the_model(pair, precision):
    found = weights_of(*pair)
    expected = pair_attention(pair[0], SOURCE, TARGET)
    assert set(found) == set(expected)
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name][0], weights, atol=TOLERANCE[precision])
        np.testing.assert_allclose(found[name].sum(axis=-1), 1, atol=1e-5)


def test_no_target_token_sees_a_later_one(pair):
    for name, weights in weights_of(*pair).items():
        if name.startswith("decoder_attention"):
            assert not np.triu(weights[0], 1).any()


def test_recurrent_layers_have_no_weights(tmp_path):
    model = tiny_ssru()
    names = write_translation_graphs(model, "fp32", tmp_path).attention.outputs
    assert sorted(names) == ["cross_attention_0", "cross_attention_1", "encoder_attention_0"]


def test_cross_attention_is_that_of_the_aligner(pair, precision):
    found = weights_of(*pair)
    expected = cross_attention(pair[0], [SOURCE], [TARGET])[0]
    ours = np.concatenate([found[f"cross_attention_{layer}"][0] for layer in range(2)])
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE[precision])


@pytest.mark.parametrize("norm_first", [True, False])
def test_texts_have_the_weights_of_the_model(norm_first, precision, tmp_path):
    model = tiny_bert(norm_first)
    graphs = write_embedding_graphs(model, precision, tmp_path)
    found = run(open_session(tmp_path, graphs.attention), token_ids=np.array([SOURCE]))
    expected = text_attention(model, SOURCE)
    assert set(found) == set(expected) == {"encoder_attention_0", "encoder_attention_1"}
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name][0], weights, atol=TOLERANCE[precision])


def test_the_graph_is_valid_and_shares_all_weights(pair, precision):
    _, folder, graphs = pair
    onnx.checker.check_model(folder / graphs.attention.path)
    assert list(graphs.weights) == [f"weights.{precision}.bin"]


def test_the_recorded_weights_are_those_that_the_model_uses():
    model = tiny_transformer(True)
    mixed: list[torch.Tensor] = []
    parts = [layer.self_attention for layer in model.encoder.layers]
    hooks = [
        part.output.register_forward_pre_hook(lambda _, inputs: mixed.append(inputs[0].detach()))
        for part in parts
    ]
    values: list[torch.Tensor] = []
    for part in parts:
        part.query_key_value.register_forward_hook(
            lambda _, __, fused: values.append(fused.detach()[..., -32:])
        )
    weights = pair_attention(model, SOURCE, TARGET)
    assert len(hooks) == len(mixed) == len(values) == 2
    for layer, (value, inner) in enumerate(zip(values, mixed, strict=True)):
        heads = value[0].unflatten(-1, (2, 16)).transpose(0, 1)
        weighted = (weights[f"encoder_attention_{layer}"] @ heads).transpose(0, 1).flatten(1)
        torch.testing.assert_close(weighted, inner[0], atol=1e-5, rtol=1e-4)


def test_other_weights_than_those_of_the_model_are_refused(tmp_path):
    model = tiny_bert(True)
    graph = GraphSession(tmp_path, write_embedding_graphs(model, "fp32", tmp_path).attention)
    assert attention.check_text_attention("fp32", graph, model, [SOURCE]) < 1e-5
    other = tiny_bert(False)
    with pytest.raises(ParityError, match="attention weights differ from the model by"):
        attention.check_text_attention("fp32", graph, other, [SOURCE])


def test_bundles_state_the_difference_to_the_model(translation_bundle):
    for parity in read_manifest(translation_bundle).parity.precisions:
        assert 0 < parity.max_attention_difference <= TOLERANCE[parity.precision]
