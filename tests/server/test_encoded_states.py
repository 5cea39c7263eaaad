"""Replaced states in the caches of recurrent and convolutional decoders, from their first token."""

import re

import numpy as np
import pytest
from attendant.v1.bundle_pb2 import STATE_UPDATE_REPLACED, StepGraph
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_TOKEN_BIAS, CacheCopy, StepInput
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.device_models import DeviceTranslationModel
from attendant_server.runtime.model_graphs import RunCounter

from tests.server.test_greedy_steps import OneByOne, model_of
from tests.server.test_host_cache import source_of, without_greedy_graph
from tests.server.test_step_roles import refusal, swap
from tests.support.models import translation_model


@pytest.fixture(params=["lstm_bundle", "gru_bundle", "bytenet_bundle", "slicenet_bundle"])
def folder(request):
    return request.getfixturevalue(request.param)


def decoded(model, tokens):
    """Log-probabilities of a few steps of two sources that join, change rows and move."""
    encoded = model.encode([source_of(7), source_of(3), source_of(5)])
    cache = model.new_cache(model.step_for(2), 2, 3, CachePool(model.cache_sizes))
    cache.load(0, encoded[0])
    found = []
    for length, token in enumerate(tokens):
        if length == 1:  # The slot of a sentence that has left is used again.
            cache.load(0, encoded[1])
            cache.load(1, encoded[2])
        num_slots = 1 if length in (0, 5) else 2
        rows = np.array([token, token + 1] * num_slots)
        lengths = np.full(len(rows), max(length - 1, 0), np.int32)
        step_input = StepInput(rows, lengths, 4, [NO_TOKEN_BIAS])
        found.append(cache.step(num_slots, step_input).log_probabilities.copy())
        if length == 2:
            cache.copy([CacheCopy(3, 2, 0, length)])
        if length == 4:
            cache.move(1, 0, length)
    return found


def test_caches_of_host_and_device_give_the_same(folder):
    bundle = read_bundle(folder, "fp32", "cpu")
    host = decoded(without_greedy_graph(bundle), [1, 9, 8, 7, 6, 5])
    device = decoded(DeviceTranslationModel(bundle, 1, "cpu", RunCounter(1)), [1, 9, 8, 7, 6, 5])
    for found, expected in zip(device, host, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("caches", ["host", "device"])
def test_a_sentence_in_a_used_slot_begins_with_its_own_states(folder, caches):
    bundle = read_bundle(folder, "fp32", "cpu")
    if caches == "host":
        model = without_greedy_graph(bundle)
    else:
        model = DeviceTranslationModel(bundle, 1, "cpu", RunCounter(1))
    encoded = model.encode([source_of(7), source_of(9)])
    first = StepInput(np.array([1, 1]), np.zeros(2, np.int32), 4, [NO_TOKEN_BIAS])
    cache = model.new_cache(model.step_for(2), 2, 3, CachePool(model.cache_sizes))
    found = []
    for number in (0, 1, 0):  # an odd number of runs in between
        cache.load(0, encoded[number])
        found.append(cache.step(1, first).log_probabilities.copy())
    np.testing.assert_array_equal(found[2], found[0])
    assert np.abs(found[1] - found[0]).max() > 1e-3


@pytest.mark.parametrize("graph", ["greedy_step", "greedy_steps"])
def test_greedy_graphs_agree_with_steps_of_any_width(folder, graph):
    models = [
        without_greedy_graph(read_bundle(folder, "fp32", "cpu")),
        model_of(folder, "fp32", graph),
    ]
    caches = [m.new_cache(m.step_for(1), 1, 4, CachePool(m.cache_sizes)) for m in models]
    for model, cache in zip(models, caches, strict=True):
        for slot, encoded in enumerate(model.encode([source_of(n) for n in (5, 40, 3, 1)])):
            cache.load(slot, encoded)
    num_tokens = caches[1].num_step_tokens
    tokens, lengths = np.array([9, 8, 7, 6]), np.zeros(4, np.int32)
    for _ in range(4):
        step_input = StepInput(tokens, lengths, 1, [NO_TOKEN_BIAS] * num_tokens)
        found = caches[1].step(4, step_input)
        _, log_probabilities = OneByOne(caches[0]).step(4, step_input)
        np.testing.assert_allclose(found.log_probabilities, log_probabilities, atol=1e-4)
        tokens, lengths = found.token_ids[:, -1].copy(), lengths + num_tokens


def test_vector_and_memory_cell_that_are_swapped_are_refused(lstm_bundle):
    def change(graph: StepGraph) -> None:
        vector, cell = [s for s in graph.states if s.update == STATE_UPDATE_REPLACED][:2]
        swap(vector, "input", cell, "input")

    found = refusal(lstm_bundle, "decoder_step", change, "fp32")
    assert re.match(r"step decoder_step: .* check .* input", found)


def test_the_budget_of_a_decoder_without_attention_has_rows_only(gru_bundle):
    model = translation_model(read_bundle(gru_bundle, "fp32", "cpu"))
    copies, states, width = 2, 2, 32
    assert model.needed_cache_bytes(4, 3, 60, 10) == 3 * 4 * copies * states * width * 4
    assert model.aligner is None
    assert model.attention is None
