"""States of rows that each run replaces, in the graphs and caches of SSRU decoders."""

import re

import numpy as np
import pytest
from attendant.v1.bundle_pb2 import STATE_UPDATE_REPLACED, StateTensor, StepGraph
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_TOKEN_BIAS, StepInput
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.cache_sizes import cache_sizes
from attendant_server.runtime.device_models import DeviceTranslationModel
from attendant_server.runtime.model_graphs import RunCounter

from tests.server.test_greedy_steps import OneByOne, model_of
from tests.server.test_host_cache import source_of, without_greedy_graph
from tests.server.test_step_roles import refusal, swap
from tests.support.altered import with_manifest
from tests.support.models import translation_model


@pytest.fixture(params=["ssru_bundle", "mixed_bundle"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("graph", ["greedy_step", "greedy_steps"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_greedy_graphs_agree_with_steps_of_any_width(folder, precision, graph):
    models = [
        without_greedy_graph(read_bundle(folder, precision, "cpu")),
        model_of(folder, precision, graph),
    ]
    caches = [m.new_cache(m.step_for(1), 1, 4, CachePool(m.cache_sizes)) for m in models]
    sources = [source_of(n) for n in (5, 40, 3, 1)]
    for model, cache in zip(models, caches, strict=True):
        for slot, encoded in enumerate(model.encode(sources)):
            cache.load(slot, encoded)
    num_tokens = caches[1].num_step_tokens
    tokens, lengths = np.array([9, 8, 7, 6]), np.zeros(4, np.int32)
    tolerance = {"fp32": 1e-4, "fp16": 2e-2}[precision]
    for _ in range(4):
        step_input = StepInput(tokens, lengths, 1, [NO_TOKEN_BIAS] * num_tokens)
        found = caches[1].step(4, step_input)
        _, log_probabilities = OneByOne(caches[0]).step(4, step_input)
        np.testing.assert_allclose(found.log_probabilities, log_probabilities, atol=tolerance)
        tokens, lengths = found.token_ids[:, -1].copy(), lengths + num_tokens


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_two_tokens_in_a_run_are_those_of_two_runs_to_the_last_bit(ssru_bundle, precision):
    models = [model_of(ssru_bundle, precision, name) for name in ("greedy_step", "greedy_steps")]
    caches = [m.new_cache(m.step_for(1), 1, 3, CachePool(m.cache_sizes)) for m in models]
    for model, cache in zip(models, caches, strict=True):
        for slot, encoded in enumerate(model.encode([source_of(n) for n in (5, 40, 3)])):
            cache.load(slot, encoded)
    tokens, lengths = np.array([9, 8, 7]), np.zeros(3, np.int32)
    for _ in range(4):
        step_input = StepInput(tokens, lengths, 1, [NO_TOKEN_BIAS] * 2)
        found = caches[1].step(3, step_input)
        expected = OneByOne(caches[0]).step(3, step_input)
        np.testing.assert_array_equal(found.token_ids, expected[0])
        np.testing.assert_array_equal(found.log_probabilities, expected[1])
        tokens, lengths = found.token_ids[:, -1].copy(), lengths + 2


def replaced_of(step: StepGraph) -> list[StateTensor]:
    return [state for state in step.states if state.update == STATE_UPDATE_REPLACED]


@pytest.mark.parametrize(
    ("step", "precision"),
    [
        ("decoder_step", "fp32"),
        ("decoder_step", "int8"),
        ("greedy_steps", "fp32"),
        ("greedy_steps", "int8"),
        # States change from the fifth token on, and by less than the tolerance of int8.
        ("shortlist_greedy_steps", "fp32"),
    ],
)
@pytest.mark.parametrize("field", ["input", "outputs"])
def test_swapped_replaced_states_are_refused(ssru_bundle, step, field, precision):
    def change(graph: StepGraph) -> None:
        first, second = replaced_of(graph)
        if field == "outputs":
            swap(first.outputs, 0, second.outputs, 0)
        else:
            swap(first, field, second, field)

    found = refusal(ssru_bundle, step, change, precision)
    assert re.match(rf"step {step}: .* check .* {field}", found)


def test_a_replaced_state_of_another_width_is_refused_by_step_and_field(ssru_bundle):
    def change(graph: StepGraph) -> None:
        replaced_of(graph)[1].shape[0] = 31

    found = refusal(ssru_bundle, "decoder_step", change)
    assert found == "step decoder_step: state vector_1: shape differs between manifest and graph"


def test_replaced_states_of_several_widths_are_refused(ssru_bundle):
    model = translation_model(read_bundle(ssru_bundle, "fp32", "cpu"))
    signature = model.decoder_step.signature
    replaced_of(signature.step)[0].shape[0] = 16
    with pytest.raises(ValueError, match="replaced states of rows must have equal types"):
        cache_sizes(signature, model.limits)


def test_vectors_that_do_not_fill_words_are_refused_on_a_device(ssru_bundle, monkeypatch):
    module = "attendant_server.runtime.decoder_model"

    def odd(*arguments):
        sizes = cache_sizes(*arguments)
        object.__setattr__(sizes.replaced, "head_dim", 31)
        return sizes

    monkeypatch.setattr(f"{module}.cache_sizes", odd)
    monkeypatch.setattr(DeviceTranslationModel, "_check_steps", lambda *_: None)
    monkeypatch.setattr(DeviceTranslationModel, "_choose_sessions", lambda *_: None)
    with pytest.raises(ValueError, match="width of replaced states 31 does not fill words"):
        DeviceTranslationModel(read_bundle(ssru_bundle, "fp32", "cpu"), 1, "cpu", RunCounter(1))


@pytest.mark.parametrize("caches", ["host", "device"])
def test_a_sentence_in_a_used_slot_begins_with_zeros(folder, caches):
    bundle = read_bundle(folder, "fp32", "cpu")
    if caches == "host":
        model = without_greedy_graph(bundle)
    else:
        model = DeviceTranslationModel(bundle, 1, "cpu", RunCounter(1))
    (encoded,) = model.encode([source_of(7)])
    cache = model.new_cache(model.step_for(2), 2, 3, CachePool(model.cache_sizes))
    found = []
    for num_steps in (3, 4):  # so that it begins with each copy of the states
        cache.load(0, encoded)
        first = StepInput(np.array([1, 1]), np.zeros(2, np.int32), 4, [NO_TOKEN_BIAS])
        found.append(cache.step(1, first).log_probabilities.copy())
        for length in range(1, num_steps):
            lengths = np.full(2, length, np.int32)
            cache.step(1, StepInput(np.array([9, 8]), lengths, 4, [NO_TOKEN_BIAS]))
    cache.load(0, encoded)
    found.append(cache.step(1, first).log_probabilities.copy())
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_the_budget_counts_two_copies_of_each_row(ssru_bundle):
    model = translation_model(read_bundle(ssru_bundle, "fp32", "cpu"))
    copies, states, width = 2, 2, 32
    row = copies * states * width * 4
    source = 16 * model.cache_sizes.sources.position_bytes
    assert model.needed_cache_bytes(4, 3, 60, 10) == 3 * (4 * row + source)


def test_a_bundle_that_leaves_out_its_replaced_states_is_refused(ssru_bundle, tmp_path):
    def without_rows(manifest):
        for precision in manifest["precisions"]:
            for step in precision["steps"]:
                rows = [s for s in step["states"] if s["owner"] == "STATE_OWNER_ROW"]
                step["states"] = [s for s in step["states"] if s not in rows]
                for state in rows:
                    step["graph"]["inputs"].remove(state["input"])
                    step["graph"]["outputs"].remove(state["outputs"][0])

    root = with_manifest(ssru_bundle, tmp_path, without_rows)
    bundle = read_bundle(root / ssru_bundle.parent.name / ssru_bundle.name, "fp32", "cpu")
    with pytest.raises(ValueError, match=r"vector_0"):
        translation_model(bundle)
