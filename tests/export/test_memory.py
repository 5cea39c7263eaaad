"""The exporter needs little memory beyond the weights of a model."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from attendant_export.graphs import quantization
from attendant_export.graphs.quantization import quantize_columns
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.verify import decoder, graph_search, reference_cache
from attendant_export.verify import reference_search as search
from attendant_export.verify import score_batches as batching
from attendant_export.verify.agreement import trace_of
from attendant_export.verify.decoder import SampleSentences
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import GraphSession, ParityError, TranslationGraphs
from attendant_export.verify.reference_cache import ReferenceCache
from attendant_export.verify.reference_search import ReferenceHypothesis
from attendant_export.verify.score_batches import score_batches
from attendant_export.verify.translation import TranslationVerifier

from tests.support.graphs import manifest_of, tiny_transformer

SOURCES = [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2], [11, 30, 6, 17, 25, 2]]
MAX_TOKENS = 8


@pytest.fixture(scope="module")
def model():
    return tiny_transformer(norm_first=True)


@pytest.fixture(scope="module")
def graphs(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return TranslationGraphs(
        folder, write_translation_graphs(model, "fp32", folder), manifest_of(model)
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_writing_graphs_takes_a_part_of_the_memory_of_the_model(precision, tmp_path):
    model = tiny_transformer(norm_first=True, vocab_size=40000)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    tracemalloc.start()
    try:
        write_translation_graphs(model, precision, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 5_000_000
    assert peak < 0.6 * size


def test_a_weight_quantized_in_blocks_has_the_values_of_the_whole(monkeypatch):
    weight = np.random.default_rng(1).normal(size=(50, 13)).astype(np.float32)
    whole = quantize_columns(weight)
    monkeypatch.setattr(quantization, "BLOCK_ROWS", 8)
    for found, expected in zip(quantize_columns(weight), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_targets_are_scored_in_batches_of_a_bounded_number_of_scores(monkeypatch):
    monkeypatch.setattr(batching, "MAX_SCORES", 1000)
    targets = [[1] * length for length in (3, 4, 4, 30, 2, 2)]
    assert score_batches(targets, vocab_size=100) == [[0, 1], [2], [3], [4, 5]]
    assert score_batches([], vocab_size=100) == []


def test_scores_in_small_batches_are_those_of_one_batch(model, graphs, monkeypatch):
    targets = [hypothesis.token_ids for hypothesis in search.greedy(model, SOURCES, MAX_TOKENS)]
    whole = search.score(model, SOURCES, targets), graphs.score(SOURCES, targets)
    monkeypatch.setattr(batching, "MAX_SCORES", 1)
    parts = search.score(model, SOURCES, targets), graphs.score(SOURCES, targets)
    for found, expected in zip(parts, whole, strict=True):
        assert [len(row) for row in found] == [len(ids) for ids in targets]
        for row, values in zip(found, expected, strict=True):
            assert row == pytest.approx(values, abs=1e-5)


def test_searches_run_fewer_sentences_together_if_their_caches_are_large(graphs, monkeypatch):
    monkeypatch.setattr(graph_search, "ALWAYS_RUNNING", 2)
    limits = [MAX_TOKENS] * len(SOURCES)
    together = search_all(graphs, SOURCES, limits, beam_size=4)
    assert largest_batch(graphs, limits, monkeypatch) == 4 * len(SOURCES)
    monkeypatch.setattr(reference_cache, "MAX_CACHE_BYTES", 1)
    assert largest_batch(graphs, limits, monkeypatch) == 4 * 2
    for found, expected in zip(
        search_all(graphs, SOURCES, limits, beam_size=4), together, strict=True
    ):
        assert found.hypotheses[0].token_ids == expected.hypotheses[0].token_ids


def largest_batch(graphs, limits, monkeypatch):
    """The largest number of rows in a step of beam search."""
    sizes = []

    def recorded(cache, tokens, *others):
        sizes.append(len(tokens))
        return step(cache, tokens, *others)

    with monkeypatch.context() as patched:
        step = ReferenceCache.step
        patched.setattr(ReferenceCache, "step", recorded)
        search_all(graphs, SOURCES, limits, beam_size=4)
    return max(sizes)


def test_a_search_leaves_the_unused_memory_of_its_caches_alone(graphs):
    cache = ReferenceCache(graphs, graphs.steps_for(4)[0], 4, 2, 8, max_target_tokens=1000)
    cache.join(SOURCES[:2])
    for _, memory in cache._past:
        memory[0, 1], memory[0, 0] = 7.0, 5.0
        memory[1] = 3.0
    cache.step([5] * 8, [0] * 8, 4)
    cache.reorder(0, [1, 1, 1, 1])
    cache.leave(0)
    for _, memory in cache._past:
        assert (memory[0, 0, :, :1] != 5.0).all()
        assert (memory[0, 0, :, 1:] == 5.0).all()


def test_the_check_of_a_character_map_takes_little_memory():
    code = """
import resource
from attendant_export.importers.character_map import map_normalizers
from tests.support.sentencepiece_files import RULES, precompiled

content = precompiled(RULES)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
map_normalizers(content)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100 * 1024  # KiB


def test_at_most_the_encoder_and_one_other_graph_are_open(graphs):
    def opened():
        sessions = [graphs.encoder, graphs.scorer, *(s.session for s in graphs.steps.values())]
        return [session for session in sessions if session._opened is not None]

    for step in graphs.steps:
        search_all(graphs, SOURCES, [MAX_TOKENS] * len(SOURCES), step=step)
        assert opened() == [graphs.encoder, graphs.steps[step].session]
    graphs.score(SOURCES[:1], [[7, 2]])
    assert opened() == [graphs.encoder, graphs.scorer]
    graphs.close()
    assert opened() == []


def test_a_closed_session_gives_the_same_results_again(model, tmp_path):
    written = write_translation_graphs(model, "fp32", tmp_path)
    encoder = GraphSession(tmp_path, written.encoder)
    inputs = {"source": np.array([[5, 9, 2]]), "source_lengths": np.array([3])}
    names = encoder.output_names[:1]
    (before,) = encoder.run(names, inputs)
    encoder.close()
    np.testing.assert_array_equal(encoder.run(names, inputs)[0], before)


def test_every_step_of_a_search_has_the_log_probabilities_of_the_uncached_model(model):
    for source in SOURCES:
        for step in search.beam(model, source, 4, MAX_TOKENS).steps:
            kept = [*step.best, *step.running]
            scored = search.score(model, [source] * len(kept), [h.token_ids for h in kept])
            for hypothesis, values in zip(kept, scored, strict=True):
                assert hypothesis.log_probabilities == pytest.approx(values, abs=1e-5)


def test_a_greedy_search_takes_the_best_tokens_of_the_uncached_model(model):
    targets = [hypothesis.token_ids for hypothesis in search.greedy(model, SOURCES, MAX_TOKENS)]
    best = search.teacher_forced(model, SOURCES, targets).argmax(-1)
    for row, ids in zip(best.tolist(), targets, strict=True):
        assert tuple(row[: len(ids)]) == ids


@torch.inference_mode()
def test_a_model_whose_cache_changes_its_outputs_is_refused(model, monkeypatch):
    decode = model.decode

    def forgetful(target, memory, mask, past=None):
        hidden, present = decode(target, memory, mask, past)
        states = [(keys * 0.5, values) for keys, values in present.states]
        return hidden, present._replace(states=states)

    monkeypatch.setattr(model, "decode", forgetful)
    sample = SampleSentences(SOURCES, [MAX_TOKENS] * len(SOURCES))
    with pytest.raises(ParityError, match=r"differ by .* with and without caches"):
        TranslationVerifier(model, sample)


def test_long_outputs_are_decoded_without_caches_for_fewer_sentences(monkeypatch):
    def traces(*lengths):
        return [trace_of(ReferenceHypothesis((5,) * n, (-1.0,) * n)) for n in lengths]

    monkeypatch.setattr(decoder, "MAX_UNCACHED_RUNS", 30)
    assert decoder._num_uncached(traces(4, 4, 4, 4)) == 3
    assert decoder._num_uncached(traces(40, 4)) == 1
    assert decoder._num_uncached(traces(*[1] * 20)) == decoder.NUM_UNCACHED
