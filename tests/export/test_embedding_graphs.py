import numpy as np
import onnx
import pytest
import torch
from attendant_export.graphs.writer import write_embedding_graphs

from tests.support.graphs import by_id, load_graphs, open_session, padded, run, tiny_bert

TEXTS = [[2, 9, 33, 3], [2, 7, 12, 40, 31, 22, 8, 3], [2, 3], [2, 30, 6, 17, 25, 3]]
POOLINGS = ("mean", "cls", "max")

TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.15}
"""Allowed difference of hidden states, whose size is about 1, to those of the PyTorch model."""
PROBABILITY_TOLERANCE = {"fp32": 1e-6, "fp16": 1e-3, "int8": 1e-2}
NEIGHBOUR_TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2, "int8": 5e-2}
"""Allowed difference between batches: rounding, which int8 can amplify."""


class EmbeddingGraphs:
    def __init__(self, model, precision, folder):
        self.model, self.folder = model, folder
        self.graphs = write_embedding_graphs(model, precision, folder)
        self.embedder = open_session(folder, self.graphs.embedder)
        self.mlm_head = open_session(folder, self.graphs.mlm_head)

    def embed(self, texts):
        token_ids, lengths = padded(texts)
        return run(self.embedder, token_ids=token_ids, lengths=lengths)


@pytest.fixture(scope="module", params=["fp32", "int8", "fp16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["pre-norm", "post-norm"])
def graphs(request, precision, tmp_path_factory):
    folder = tmp_path_factory.mktemp(precision)
    return EmbeddingGraphs(tiny_bert(norm_first=request.param), precision, folder)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_hidden_states_are_the_models(graphs, precision, layer):
    found = graphs.embed(TEXTS)[f"hidden_{layer}"]
    with torch.inference_mode():
        expected = graphs.model.hidden_states(torch.from_numpy(padded(TEXTS)[0]))[layer].numpy()
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(
            found[row, : len(text)], expected[row, : len(text)], atol=TOLERANCE[precision]
        )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_vectors_are_the_models(graphs, precision, pooling):
    found = graphs.embed(TEXTS)[f"{pooling}_pooled"]
    with torch.inference_mode():
        expected = graphs.model.pooled(torch.from_numpy(padded(TEXTS)[0]), pooling).numpy()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[precision])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_vectors_do_not_depend_on_other_texts(graphs, precision, pooling):
    together = graphs.embed(TEXTS)[f"{pooling}_pooled"]
    for row, text in enumerate(TEXTS):
        alone = graphs.embed([text])[f"{pooling}_pooled"][0]
        np.testing.assert_allclose(together[row], alone, atol=NEIGHBOUR_TOLERANCE[precision])


def test_padding_tokens_change_nothing(graphs):
    expected = graphs.embed(TEXTS)
    token_ids, lengths = padded(TEXTS)
    for row, length in enumerate(lengths):
        token_ids[row, length:] = 13
    found = run(graphs.embedder, token_ids=token_ids, lengths=lengths)
    for pooling in POOLINGS:
        np.testing.assert_array_equal(found[f"{pooling}_pooled"], expected[f"{pooling}_pooled"])


def test_the_mlm_head_gives_the_models_probabilities(graphs, precision):
    hidden = graphs.embed(TEXTS)["hidden_2"][:, 1]
    with torch.inference_mode():
        logits = graphs.model.mask_logits(graphs.model(torch.from_numpy(padded(TEXTS)[0]))[:, 1])
    found = run(graphs.mlm_head, hidden=hidden, top_k=np.array([50]))
    np.testing.assert_allclose(
        by_id(found["candidate_ids"], found["candidate_probabilities"]),
        logits.softmax(-1).numpy(),
        atol=PROBABILITY_TOLERANCE[precision],
    )


def test_the_mlm_head_gives_as_many_candidates_as_asked_for(graphs):
    hidden = graphs.embed(TEXTS)["hidden_2"][:, 1]
    every = run(graphs.mlm_head, hidden=hidden, top_k=np.array([50]))
    three = run(graphs.mlm_head, hidden=hidden, top_k=np.array([3]))
    for name, value in three.items():
        np.testing.assert_array_equal(value, every[name][:, :3])


def test_inputs_and_outputs_have_the_shapes_of_the_contract(graphs):
    pooled = {f"{name}_pooled": ["batch", 32] for name in POOLINGS}
    hidden = {f"hidden_{layer}": ["batch", "length", 32] for layer in range(3)}
    inputs = {"token_ids": ["batch", "length"], "lengths": ["batch"]}
    values = [*graphs.embedder.get_inputs(), *graphs.embedder.get_outputs()]
    assert {value.name: value.shape for value in values} == inputs | pooled | hidden
    assert {value.type for value in graphs.embedder.get_outputs()} == {"tensor(float)"}
    head: dict[str, list] = {"hidden": ["masks", 32], "top_k": [1]}
    outputs = {name: ["masks", "candidates"] for name in graphs.graphs.mlm_head.outputs}
    values = [*graphs.mlm_head.get_inputs(), *graphs.mlm_head.get_outputs()]
    assert {value.name: value.shape for value in values} == head | outputs


def test_the_message_names_the_files(graphs, precision):
    message = graphs.graphs
    assert (message.name, message.weights) == (precision, [f"weights.{precision}.bin"])
    assert message.embedder.path == f"embedder.{precision}.onnx"
    assert message.mlm_head.path == f"mlm_head.{precision}.onnx"
    for graph in (message.embedder, message.mlm_head):
        onnx.checker.check_model(graphs.folder / graph.path)


def test_embedder_and_head_share_the_table(graphs):
    places = []
    for graph in load_graphs(graphs.folder, graphs.graphs):
        (table,) = (tensor for tensor in graph.initializer if tensor.name == "embedding.weight")
        places.append([entry.value for entry in table.external_data])
    assert places[0] == places[1]
