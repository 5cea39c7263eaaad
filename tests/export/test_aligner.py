"""Aligner graphs give the cross-attention weights of the model, and the best heads are chosen."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from attendant.v1.bundle_pb2 import Alignment
from attendant_export.bundle.manifest import read_manifest
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.verify import alignment
from attendant_export.verify.alignment import cross_attention, head_weights

from tests.support.graphs import open_session, padded, tiny_ssru, tiny_transformer

SOURCES = [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2]]
TARGETS = [[4, 8, 15, 2], [23, 42, 2], [3, 3, 3, 3, 3, 3, 2]]
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}
MODELS = {
    "pre-norm": lambda: tiny_transformer(True),
    "post-norm": lambda: tiny_transformer(False),
    "ssru": tiny_ssru,
}


class Graphs:
    """The encoder and the aligner of a model, in one precision."""

    def __init__(self, model: EncoderDecoder, precision: str, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.message = write_translation_graphs(model, precision, folder)
        self.encoder = open_session(folder, self.message.encoder)
        self.aligner = open_session(folder, self.message.aligner)

    def weights(self, factors: np.ndarray) -> np.ndarray:
        """The output for all pairs as one batch: (batch, target, source)."""
        source, lengths = padded(SOURCES)
        start = self.model.tokens.bos_id
        target_in, _ = padded([[start, *target[:-1]] for target in TARGETS])
        names = [value.name for value in self.encoder.get_outputs()]
        encoded = self.encoder.run(names, {"source": source, "source_lengths": lengths})
        inputs = {
            "target_in": target_in,
            "source_lengths": lengths,
            "head_weights": factors,
            **dict(zip(names, encoded, strict=True)),
        }
        (found,) = self.aligner.run(["alignment"], inputs)
        return found


@pytest.fixture(scope="module", params=["fp32", "int8", "fp16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module", params=MODELS)
def graphs(request, precision, tmp_path_factory):
    return Graphs(MODELS[request.param](), precision, tmp_path_factory.mktemp("graphs"))


def num_heads(graphs: Graphs) -> int:
    return int(head_weights(graphs.model.architecture, Alignment()).size)


def test_each_head_has_the_weights_of_the_model(graphs, precision):
    for head in range(num_heads(graphs)):
        found = graphs.weights(np.eye(num_heads(graphs), dtype=np.float32)[head])
        for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
            expected = cross_attention(graphs.model, [source], [target])[0, head].numpy()
            own = found[i, : len(target), : len(source)]
            np.testing.assert_allclose(own, expected, atol=TOLERANCE[precision])
            np.testing.assert_allclose(own.sum(axis=1), 1, atol=1e-3)


def test_padding_has_no_weight(graphs):
    found = graphs.weights(np.full(num_heads(graphs), 1.0, np.float32))
    for i, source in enumerate(SOURCES):
        assert not found[i, :, len(source) :].any()


def test_heads_are_averaged_with_the_given_weights(graphs, precision):
    one, other = np.eye(num_heads(graphs), dtype=np.float32)[[0, -1]]
    expected = 0.25 * graphs.weights(one) + 0.75 * graphs.weights(other)
    found = graphs.weights(0.25 * one + 0.75 * other)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_aligner_is_a_valid_graph_that_shares_all_weights(graphs, precision):
    onnx.checker.check_model(graphs.folder / graphs.message.aligner.path)
    assert list(graphs.message.weights) == [f"weights.{precision}.bin"]


def test_the_weights_that_are_recorded_are_those_that_the_model_uses():
    model = tiny_transformer(True)
    weights = cross_attention(model, [SOURCES[1]], [TARGETS[1]])
    recorded: list[torch.Tensor] = []
    for layer in model.decoder.layers:
        layer.cross_attention.output.register_forward_pre_hook(
            lambda _, inputs: recorded.append(inputs[0].detach())
        )
    with torch.inference_mode():
        _, _, memory, mask = model.start(torch.tensor([SOURCES[1]]))
        model.decode(torch.tensor([[model.tokens.bos_id, *TARGETS[1][:-1]]]), memory, mask)
    heads = iter(weights[0].split(weights.shape[1] // len(memory)))
    for (_, values), inner in zip(filter(None, memory), recorded, strict=True):
        weighted = (next(heads) @ values[0]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(weighted, inner[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shift", [0, 1])
def test_the_head_that_attends_to_the_token_on_which_a_target_token_depends_is_chosen(
    monkeypatch, shift
):
    """Target token i depends on source token i, and only head 3 attends to it."""
    model = tiny_transformer(True)
    pad_id = model.tokens.pad_id

    def score(_, sources, targets):
        rows = zip(sources, targets, strict=True)
        return [[-5.0 if s[j] == pad_id else -0.1 for j in range(len(t))] for s, t in rows]

    def attention(_, sources, targets):
        length = len(targets[0])
        weights = torch.full((1, 4, length, length), 1 / length)
        weights[0, 3] = torch.eye(length).roll(shift, dims=0)
        return weights

    monkeypatch.setattr(alignment, "score", score)
    monkeypatch.setattr(alignment, "cross_attention", attention)
    sources = [[4, 9, 17, 2], [23, 5, 11, 30, 2], [8, 41, 2], [33, 12, 6, 2]]
    found = alignment.choose_heads(model, sources, sources)
    assert [(head.layer, head.head) for head in found.heads] == [(1, 1)]
    assert found.uses_reading_positions == bool(shift)


def test_some_head_is_chosen_without_any_pair():
    found = alignment.choose_heads(tiny_transformer(True), [[2]], [[2]])
    assert len(found.heads) == 1


def test_the_choice_is_part_of_the_manifest_of_a_bundle(translation_bundle):
    manifest = read_manifest(translation_bundle)
    assert manifest.alignment.heads
    for parity in manifest.parity.precisions:
        assert parity.max_alignment_difference <= TOLERANCE[parity.precision]
