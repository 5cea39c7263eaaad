from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from attendant_export.graphs.writer import write_translation_graphs

from tests.support.graphs import (
    TranslationGraphs,
    load_graphs,
    model_log_probabilities,
    padded,
    run,
    tiny_ssru,
    tiny_transformer,
)

SOURCES = [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2], [11, 30, 6, 17, 25, 2]]
TARGETS = [[1, 4, 8, 15, 16], [1, 23, 42], [1, 3, 3, 3, 3, 3, 3], [1, 30, 20, 10]]
STARTS = [0, 1, 3, 3]
"""The step at which each row joins, so that the rows of a step have pasts of different lengths."""

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.2}
"""Allowed difference of log-probabilities to those of the PyTorch model."""
NEIGHBOUR_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2}
"""Allowed difference of log-probabilities between batches: rounding, which int8 can amplify."""


@pytest.fixture(scope="module", params=["fp32", "int8", "fp16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module", params=["decoder_step", "greedy_step"])
def step(request):
    return request.param


@pytest.fixture(scope="module", params=["pre-norm", "post-norm", "ssru"])
def graphs(request, precision, step, tmp_path_factory):
    folder = tmp_path_factory.mktemp(precision)
    is_recurrent = request.param == "ssru"
    model = tiny_ssru() if is_recurrent else tiny_transformer(request.param == "pre-norm")
    return TranslationGraphs(model, precision, folder, step=step)


def test_the_encoder_gives_the_models_keys_and_values(graphs, precision):
    source, lengths = padded(SOURCES)
    found = graphs.encode(source, lengths)
    with torch.inference_mode():
        _, _, memory, _ = graphs.model.start(torch.from_numpy(source))
    for layer, pair in enumerate(filter(None, memory)):
        for kind, expected in zip(("key", "value"), pair, strict=True):
            for row, length in enumerate(lengths):
                np.testing.assert_allclose(
                    found[f"cross_{kind}_{layer}"][row, :, :length],
                    expected[row, :, :length].numpy(),
                    atol=TOLERANCE[precision],
                )


def test_rows_of_different_ages_get_the_models_log_probabilities(graphs, precision):
    found = graphs.decode(SOURCES, TARGETS, STARTS)
    for source, target, scores in zip(SOURCES, TARGETS, found, strict=True):
        expected = model_log_probabilities(graphs.model, source, target)
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE[precision])


@pytest.mark.parametrize("row", range(len(SOURCES)))
def test_a_row_does_not_depend_on_its_neighbours(graphs, precision, row):
    together = graphs.decode(SOURCES, TARGETS, STARTS)[row]
    (alone,) = graphs.decode([SOURCES[row]], [TARGETS[row]], [0])
    np.testing.assert_allclose(together, alone, atol=NEIGHBOUR_TOLERANCE[precision])


def test_what_an_earlier_sentence_left_in_the_caches_is_not_read(graphs):
    (expected,) = graphs.decode([SOURCES[0]], [TARGETS[0]], [0])
    for cache in graphs.caches.values():
        cache[:] = 1000
    (found,) = graphs.decode([SOURCES[0]], [TARGETS[0]], [0])
    np.testing.assert_array_equal(found, expected)


def test_the_step_writes_into_the_caches_it_was_given(graphs):
    for cache in graphs.caches.values():
        cache[:] = 0
    graphs.decode([SOURCES[0]], [TARGETS[0]], [0])
    for name, cache in graphs.caches.items():
        if name in graphs.replaced:
            assert cache[0].any()
            continue
        assert cache[0, :, : len(TARGETS[0])].any(axis=-1).all()
        assert not cache[0, :, len(TARGETS[0]) :].any()
        assert not cache[1:].any()


def test_a_step_leaves_its_sources_as_they_are(graphs):
    source, source_lengths = padded(SOURCES)
    memory = graphs.encode(source, source_lengths)
    before = {name: value.copy() for name, value in memory.items()}
    graphs.step([1] * 4, [0] * 4, memory, source_lengths)
    for name, value in memory.items():
        np.testing.assert_array_equal(value, before[name])


def test_sources_of_one_token_get_the_models_log_probabilities(graphs, precision):
    sources, targets = [[2], [9], [2]], [[1, 4, 8], [1, 23], [1, 3, 3]]
    found = graphs.decode(sources, targets, [0, 0, 1])
    for source, target, scores in zip(sources, targets, found, strict=True):
        expected = model_log_probabilities(graphs.model, source, target)
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE[precision])


def test_beams_of_a_sentence_get_what_they_would_get_alone(graphs, precision, step):
    if step == "greedy_step":
        pytest.skip("one row for each sentence")
    beams = [[1, 4, 8], [1, 23, 42], [1, 3, 3], [1, 30, 20]]
    source, source_lengths = padded(SOURCES[:2])
    memory = graphs.encode(source, source_lengths)
    for step in range(3):
        tokens = [beam[step] for beam in beams + beams]
        found = graphs.step(tokens, [step] * 8, memory, source_lengths)
    for row, scores in enumerate(found):
        (alone,) = graphs.decode([SOURCES[row // 4]], [beams[row % 4]], [0])
        np.testing.assert_allclose(scores, alone[-1], atol=NEIGHBOUR_TOLERANCE[precision])


def test_a_bias_suppresses_a_token_of_one_row_only(graphs):
    source, source_lengths = padded(SOURCES[:2])
    memory = graphs.encode(source, source_lengths)
    plain = graphs.step([1, 1], [0, 0], memory, source_lengths)
    found = graphs.step([1, 1], [0, 0], memory, source_lengths, {(0, 2): -np.inf})
    assert found[0, 2] == -np.inf
    np.testing.assert_array_equal(np.delete(found[0], 2), np.delete(plain[0], 2))
    np.testing.assert_array_equal(found[1], plain[1])


def test_a_bias_leaves_the_log_probabilities_of_other_tokens_alone(graphs):
    source, source_lengths = padded(SOURCES[:1])
    memory = graphs.encode(source, source_lengths)
    plain = graphs.step([1], [0], memory, source_lengths)
    found = graphs.step([1], [0], memory, source_lengths, {(0, 9): 2.0, (0, 4): -1.0})
    raised = plain.copy()
    raised[0, [9, 4]] += 2.0, -1.0
    np.testing.assert_allclose(found, raised, atol=1e-5)


def test_a_longer_buffer_of_cross_attention_changes_nothing(graphs, precision):
    source, source_lengths = padded(SOURCES[:2])
    memory = graphs.encode(source, source_lengths)
    longer = {
        name: np.concatenate([value, np.full_like(value[:, :, :7], 100)], axis=2)
        for name, value in memory.items()
    }
    expected = graphs.step([1, 1], [0, 0], memory, source_lengths)
    found = graphs.step([1, 1], [0, 0], longer, source_lengths)
    np.testing.assert_allclose(found, expected, atol=NEIGHBOUR_TOLERANCE[precision])


def test_padding_tokens_of_a_source_change_nothing(graphs):
    source, lengths = padded(SOURCES)
    expected = graphs.encode(source, lengths)
    for row, length in enumerate(lengths):
        source[row, length:] = 13
    for name, value in graphs.encode(source, lengths).items():
        for row, length in enumerate(lengths):
            np.testing.assert_array_equal(
                value[row, :, :length], expected[name][row, :, :length], err_msg=name
            )


def test_the_scorer_gives_the_models_log_probabilities(graphs, precision):
    source, source_lengths = padded(SOURCES)
    memory = graphs.encode(source, source_lengths)
    target, target_lengths = padded(TARGETS)
    inputs = {"target_in": target[:, :-1], "target_out": target[:, 1:]}
    inputs |= {"source_lengths": source_lengths, **memory}
    found = run(graphs.scorer, **inputs)["log_probabilities"]
    for row, length in enumerate(target_lengths - 1):
        given = TARGETS[row]
        expected = model_log_probabilities(graphs.model, SOURCES[row], given[:-1])
        chosen = expected[range(length), given[1:]]
        np.testing.assert_allclose(found[row, :length], chosen, atol=TOLERANCE[precision])


def test_padding_tokens_of_a_target_change_nothing(graphs):
    source, source_lengths = padded(SOURCES)
    fixed = {"source_lengths": source_lengths, **graphs.encode(source, source_lengths)}
    target, lengths = padded(TARGETS)
    expected = run(graphs.scorer, target_in=target, target_out=target, **fixed)
    for row, length in enumerate(lengths):
        target[row, length:] = 13
    found = run(graphs.scorer, target_in=target, target_out=target, **fixed)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(
            found["log_probabilities"][row, :length], expected["log_probabilities"][row, :length]
        )


@pytest.mark.parametrize("num_heads", [1, 4])
def test_any_number_of_heads_gives_the_models_log_probabilities(tmp_path, num_heads):
    model = tiny_transformer(norm_first=True, num_heads=num_heads)
    found = TranslationGraphs(model, "fp32", tmp_path).decode(SOURCES, TARGETS, STARTS)
    for source, target, scores in zip(SOURCES, TARGETS, found, strict=True):
        expected = model_log_probabilities(model, source, target)
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE["fp32"])


def test_inputs_and_outputs_have_the_shapes_of_the_contract(graphs, precision):
    cache, memory = ["rows", 2, "max_length", 16], ["sentences", 2, "source", 16]
    real = "tensor(float16)" if precision == "fp16" else "tensor(float)"
    expected = {
        "tokens": (["rows"], "tensor(int64)"),
        "past_lengths": (["rows"], "tensor(int32)"),
        "total_length": ([1], "tensor(int32)"),
        "num_candidates": ([1], "tensor(int64)"),
        "bias_indices": (["biased", 2], "tensor(int64)"),
        "bias_values": (["biased"], "tensor(float)"),
        "source_lengths": (["sentences"], "tensor(int64)"),
        "candidate_ids": (["rows", "candidates"], "tensor(int64)"),
        "candidate_log_probabilities": (["rows", "candidates"], "tensor(float)"),
    }
    for layer in range(2):
        if graphs.replaced:
            for name in (f"vector_{layer}", f"next_vector_{layer}"):
                expected[name] = (["rows", 32], "tensor(float)")
        for kind in ("key", "value"):
            expected[f"cross_{kind}_{layer}"] = (memory, real)
            if not graphs.replaced:
                expected[f"past_{kind}_{layer}"] = (cache, real)
                expected[f"present_{kind}_{layer}"] = (cache, real)
    assert interface_of(graphs.sessions["decoder_step"]) == expected
    expected |= {
        "source_lengths": (["rows"], "tensor(int64)"),
        "total_source_length": ([1], "tensor(int32)"),
    }
    for name in [name for name in expected if name.startswith("cross_")]:
        expected[name] = expected[f"present_{name}"] = (["rows", *memory[1:]], real)
    assert interface_of(graphs.sessions["greedy_step"]) == expected
    del expected["num_candidates"]
    for name in [n for n in expected if n.startswith("present_")]:
        expected[f"{name}_1"] = expected[name]
    expected["bias_indices_1"] = (["biased_1", 2], "tensor(int64)")
    expected["bias_values_1"] = (["biased_1"], "tensor(float)")
    expected["candidate_ids"] = (["rows", 2], "tensor(int64)")
    expected["candidate_log_probabilities"] = (["rows", 2], "tensor(float)")
    assert interface_of(graphs.sessions["greedy_steps"]) == expected


def interface_of(session):
    values = [*session.get_inputs(), *session.get_outputs()]
    return {value.name: (value.shape, value.type) for value in values}


def test_the_message_names_the_files_and_their_interfaces(graphs, precision):
    message = graphs.graphs
    assert (message.name, message.weights) == (precision, [f"weights.{precision}.bin"])
    assert message.encoder.path == f"encoder.{precision}.onnx"
    assert list(message.encoder.inputs) == ["source", "source_lengths"]
    sessions = {"encoder": graphs.encoder, "scorer": graphs.scorer, **graphs.sessions}
    described = {
        "encoder": message.encoder,
        "scorer": message.scorer,
        **{step.name: step.graph for step in message.steps},
    }
    assert described.keys() == sessions.keys()
    for name, session in sessions.items():
        graph = described[name]
        assert list(graph.inputs) == [value.name for value in session.get_inputs()]
        assert list(graph.outputs) == [value.name for value in session.get_outputs()]
        onnx.checker.check_model(graphs.folder / graph.path)


def test_graphs_share_each_weight(graphs, precision):
    places: dict[str, set[tuple[str, ...]]] = {}
    for graph in load_graphs(graphs.folder, graphs.graphs):
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                place = tuple(entry.value for entry in tensor.external_data)
                places.setdefault(tensor.name, set()).add(place)
    assert all(len(place) == 1 for place in places.values())
    stored = [(int(offset), int(length)) for ((_, offset, length),) in places.values()]
    assert len(set(stored)) == len(stored)
    size = graphs.folder.joinpath(f"weights.{precision}.bin").stat().st_size
    assert size == max(offset + length for offset, length in stored)
    tables = [
        length
        for _, length in stored
        if length == 50 * 32 * {"fp32": 4, "fp16": 2}.get(precision, 1)
    ]
    assert len(tables) == 1


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="precision must be one of fp32, int8, fp16"):
        write_translation_graphs(tiny_transformer(True), "bf16", Path(tmp_path))
