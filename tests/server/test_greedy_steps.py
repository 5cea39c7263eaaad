"""Greedy step graphs on the host give the results of decoder_step and change no other memory."""

import random
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_TOKEN_BIAS, StepInput, TokenBias
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.host_cache import HostDecoderCache

from tests.server.test_host_cache import Twins, search_at_random, source_of, without_greedy_graph
from tests.support.models import translation_model

GREEDY_GRAPHS = "greedy_steps", "greedy_step"


def step_of(cache, *tokens):
    """The input of a first step with one row per sentence."""
    lengths = np.zeros(len(tokens), np.int32)
    return StepInput(np.array(tokens), lengths, 1, [NO_TOKEN_BIAS] * cache.num_step_tokens)


def model_of(folder, precision, graph):
    """A model whose greedy search uses the step graph ``graph``."""
    bundle = read_bundle(folder, precision, "cpu")
    for graphs in bundle.manifest.precisions:
        for step in [s for s in graphs.steps if s.name in GREEDY_GRAPHS and s.name != graph]:
            graphs.steps.remove(step)
    return translation_model(bundle)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("int8", 5e-2), ("fp16", 2e-2)]
)
def test_greedy_steps_agree_with_steps_of_any_width(translation_bundle, precision, tolerance):
    both = SimpleNamespace(
        host=without_greedy_graph(read_bundle(translation_bundle, precision, "cpu")),
        device=model_of(translation_bundle, precision, "greedy_step"),
        tolerance=tolerance,
    )
    assert both.device.greedy_graph is not None
    search_at_random(Twins(both, width=1), random.Random(3))


@pytest.fixture(scope="module", params=product(["fp32", "int8"], GREEDY_GRAPHS), ids="-".join)
def model(request, translation_bundle):
    return model_of(translation_bundle, *request.param)


def new_cache(model, max_slots, left_there=0.0):
    """A new cache, or one whose memory still holds values of earlier sentences."""
    pool = CachePool(model.cache_sizes)
    cache = HostDecoderCache(model.greedy_graph, 1, max_slots, model.vocab_size, pool)
    assert cache._cross is not None
    cache._cross.memory[...] = left_there
    return cache


def load(cache, model, *sources):
    for slot, encoded in enumerate(model.encode(sources)):
        cache.load(slot, encoded)


def test_a_greedy_step_reads_nothing_behind_a_source(model):
    found = []
    for left_there in (0, np.nan):
        cache = new_cache(model, 3, left_there)
        load(cache, model, source_of(5), source_of(40), source_of(3))
        cache.move(2, 1, 0)
        found.append(cache.step(2, step_of(cache, 9, 8)).log_probabilities.copy())
    np.testing.assert_array_equal(found[0], found[1])


def test_a_longer_source_that_joins_sources_of_one_token_changes_nothing_for_them(model):
    cache = new_cache(model, 3)
    load(cache, model, [2], [2])
    alone = cache.step(2, step_of(cache, 9, 8)).log_probabilities.copy()
    (longer,) = model.encode([source_of(20)])
    cache.load(2, longer)
    together = cache.step(3, step_of(cache, 9, 8, 7)).log_probabilities.copy()
    np.testing.assert_allclose(together[:2], alone, atol=1e-5)
    cache.step(3, step_of(cache, 9, 8, 7))
    for cross, keys_values in zip(cache._cross.tensors, longer.keys_values, strict=True):
        np.testing.assert_array_equal(cross[2, :, :20], keys_values)


def test_a_bound_greedy_step_is_used_again(model):
    cache = new_cache(model, 4)
    load(cache, model, *([source_of(5)] * 4))
    for num_slots in (4, 3, 4, 3, 2, 4):
        cache.step(num_slots, step_of(cache, *[9] * num_slots))
    assert len(cache._bindings) == 3


class OneByOne:
    """The expected tokens of several steps per run, from single steps over the same sources."""

    def __init__(self, cache):
        self.cache = cache

    def step(self, num_slots, step_input):
        tokens, lengths = step_input.tokens, step_input.lengths
        found = []
        for bias in step_input.token_biases:
            best = self.cache.step(num_slots, StepInput(tokens, lengths, 1, [bias]))
            tokens, lengths = best.token_ids[:, 0].copy(), lengths + 1
            found.append((tokens, best.log_probabilities[:, 0].copy()))
        return [np.stack(each, axis=1) for each in zip(*found, strict=True)]


@pytest.fixture(params=["fp32", "int8", "fp16"])
def one_by_one_and_together(request, translation_bundle):
    graphs = ("greedy_step", "greedy_steps")
    models = [model_of(translation_bundle, request.param, graph) for graph in graphs]
    caches = [
        model.new_cache(model.step_for(1), 1, 3, CachePool(model.cache_sizes)) for model in models
    ]
    for model, cache in zip(models, caches, strict=True):
        load(cache, model, source_of(5), source_of(40), source_of(3))
    # Bit-identical, except for fp16, where ONNX Runtime places conversions differently.
    tolerance = 1e-5 if request.param == "fp16" else 0
    return OneByOne(caches[0]), caches[1], tolerance


def assert_same(found, expected, tolerance, columns=slice(None)):
    np.testing.assert_array_equal(found.token_ids[:, columns], expected[0][:, columns])
    np.testing.assert_allclose(
        found.log_probabilities[:, columns], expected[1][:, columns], rtol=0, atol=tolerance
    )


def test_several_steps_in_a_run_find_what_they_find_one_by_one(one_by_one_and_together):
    one_by_one, together, tolerance = one_by_one_and_together
    num_tokens = together.num_step_tokens
    assert num_tokens > 1
    tokens, lengths = np.array([9, 8, 7]), np.zeros(3, np.int32)
    for num_rows in (1, 2, 3, 3, 2, 3):  # so that the rows of a run have different lengths
        rows = slice(num_rows)
        step_input = StepInput(
            tokens[rows].copy(), lengths[rows].copy(), 1, [NO_TOKEN_BIAS] * num_tokens
        )
        found = together.step(num_rows, step_input)
        assert_same(found, one_by_one.step(num_rows, step_input), tolerance)
        tokens[rows], lengths[rows] = found.token_ids[:, -1], lengths[rows] + num_tokens


def test_each_token_of_a_run_has_a_bias_of_its_own(one_by_one_and_together):
    one_by_one, together, tolerance = one_by_one_and_together
    plain = step_of(together, 9, 8, 7)
    likeliest = together.step(3, plain).token_ids.copy()
    for step in range(together.num_step_tokens):
        biases = list(plain.token_biases)
        position = np.array([[1, likeliest[1, step]]])
        biases[step] = TokenBias(position, np.full(1, -np.inf, np.float32))
        step_input = StepInput(plain.tokens, plain.lengths, 1, biases)
        found = together.step(3, step_input)
        assert found.token_ids[1, step] != likeliest[1, step]
        np.testing.assert_array_equal(found.token_ids[[0, 2]], likeliest[[0, 2]])
        assert_same(found, one_by_one.step(3, step_input), tolerance)
    assert_same(together.step(3, plain), one_by_one.step(3, plain), tolerance)


def test_a_run_that_goes_on_behind_a_full_row_changes_nothing_for_others(
    one_by_one_and_together, translation_bundle
):
    one_by_one, together, tolerance = one_by_one_and_together
    limit = read_bundle(translation_bundle, "fp32", "cpu").manifest.limits.max_target_tokens
    full = StepInput(
        np.array([9, 8, 7]),
        np.array([limit - 1, 0, 0], np.int32),
        1,
        [NO_TOKEN_BIAS] * together.num_step_tokens,
    )
    first = StepInput(full.tokens, full.lengths, 1, [NO_TOKEN_BIAS])
    found = together.step(3, full)
    assert_same(found, one_by_one.step(3, first), tolerance, columns=slice(1))
    assert np.isfinite(found.log_probabilities).all()
    # With single steps the full row cannot continue, so the others move to its slot.
    tokens, lengths = found.token_ids[:, 0].copy(), np.array([0, 1, 1], np.int32)
    second = StepInput(tokens, lengths, 1, [NO_TOKEN_BIAS])
    expected = one_by_one.step(3, second)
    np.testing.assert_array_equal(found.token_ids[1:, 1:], expected[0][1:])
    np.testing.assert_allclose(
        found.log_probabilities[1:, 1:], expected[1][1:], rtol=0, atol=tolerance
    )
