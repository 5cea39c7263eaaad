"""Steps with shortlists: their arithmetic, and their independence of neighbours' shortlists."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_TOKEN_BIAS, StepInput, TokenBias
from attendant_server.loading import ModelLoader
from attendant_server.observability.metrics import NoMetrics
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Shortlists
from attendant_server.settings import Settings

from tests.server.test_host_cache import Twins, search_at_random, source_of, without_greedy_graph
from tests.support.models import translation_model


def test_a_step_lists_what_any_of_its_rows_may_use():
    shortlists = Shortlists(max_slots=3, width=1, vocab_size=20)
    shortlists.load(0, np.array([7, 5, 7]))
    shortlists.load(1, np.array([9, 5]))

    listed = shortlists.of_first(2)

    assert listed.token_ids.tolist() == [0, 1, 5, 7, 9]  # 0 and 1 fill up to two candidates
    assert listed.may_use.tolist() == [
        [True, True, True, True, False],
        [True, True, True, False, True],
    ]


def test_all_rows_of_a_sentence_have_its_list():
    shortlists = Shortlists(max_slots=2, width=2, vocab_size=20)
    shortlists.load(0, np.array([15]))
    shortlists.load(1, np.array([16]))

    assert (
        shortlists.of_first(2).may_use[:, 4:].tolist() == [[True, False]] * 2 + [[False, True]] * 2
    )


def test_as_many_tokens_are_listed_as_there_are_candidates_but_may_not_be_used():
    shortlists = Shortlists(max_slots=1, width=1, vocab_size=20)
    shortlists.load(0, np.array([5, 9]))
    listed = shortlists.of_first(1, num_candidates=7)
    assert listed.token_ids.tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert listed.token_ids[listed.may_use[0]].tolist() == [0, 1, 5, 9]


def test_a_list_goes_where_its_sentence_goes_and_is_replaced_by_that_of_the_next():
    shortlists = Shortlists(max_slots=2, width=1, vocab_size=20)
    shortlists.load(0, np.array([5]))
    shortlists.load(1, np.array([9]))
    assert shortlists.of_first(2).token_ids.tolist() == [0, 1, 5, 9]
    shortlists.move(1, 0)
    assert shortlists.of_first(1).token_ids.tolist() == [0, 1, 9]
    shortlists.load(0, np.array([12]))
    assert shortlists.of_first(1).token_ids.tolist() == [0, 1, 12]


def test_biased_tokens_are_found_in_the_list_and_left_out_if_they_are_not_on_it():
    shortlists = Shortlists(max_slots=1, width=1, vocab_size=20)
    shortlists.load(0, np.array([2, 9, 15]))
    positions = np.array([[0, 2], [0, 3], [3, 15], [3, 19]])
    values = np.array([-1, -2, -3, -4], np.float32)

    found = shortlists.of_first(1).by_column(TokenBias(positions, values))

    assert found.positions.tolist() == [[0, 2], [3, 4]]
    assert found.values.tolist() == [-1, -3]


class WithAllTokens:
    """A model with shortlists, whose lists hold the whole vocabulary."""

    def __init__(self, bundle):
        self.model = translation_model(bundle, uses_shortlists=True)
        self.new_cache, self.cache_sizes = self.model.new_cache, self.model.cache_sizes
        self.step_for = self.model.step_for

    def encode(self, sources):
        everything = np.arange(self.model.vocab_size)
        return [replace(each, shortlist=everything) for each in self.model.encode(sources)]


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 1e-1)])
def test_lists_of_all_tokens_change_nothing(translation_bundle, width, precision, tolerance):
    bundle = read_bundle(translation_bundle, precision, "cpu")
    both = SimpleNamespace(
        host=without_greedy_graph(bundle), device=WithAllTokens(bundle), tolerance=tolerance
    )
    search_at_random(Twins(both, width), random.Random(width))


@pytest.fixture(scope="module", params=["fp32", "int8", "fp16"])
def model(request, translation_bundle):
    bundle = read_bundle(translation_bundle, request.param, "cpu")
    return translation_model(bundle, uses_shortlists=True)


def greedy(model, sources, num_steps=6, least=0):
    """Tokens (steps, sentences), and log-probabilities, of sentences that start together.

    EOS is forbidden for the first ``least`` tokens.
    """
    cache = model.new_cache(model.step_for(1), 1, len(sources), CachePool(model.cache_sizes))
    for slot, encoded in enumerate(model.encode(sources)):
        cache.load(slot, encoded)
    tokens = np.full(len(sources), model.start_token_id)
    found = []
    for start in range(0, num_steps, cache.num_step_tokens):
        ends = np.array([(row, model.eos_id) for row in range(len(sources))])
        no_ends = TokenBias(ends, np.full(len(sources), -np.inf, np.float32))
        biases = [
            no_ends if start + i < least else NO_TOKEN_BIAS for i in range(cache.num_step_tokens)
        ]
        lengths = np.full(len(sources), start, np.int32)
        step = cache.step(len(sources), StepInput(tokens, lengths, 1, biases))
        found.append((step.token_ids.T.copy(), step.log_probabilities.T.copy()))
        tokens = step.token_ids[:, -1]
    ids, log_p = zip(*found, strict=True)
    return np.concatenate(ids), np.concatenate(log_p)


def test_greedy_search_uses_what_is_on_the_list_of_each_source(model):
    sources = [source_of(n, n) for n in (3, 9, 30, 5)]
    ids, _ = greedy(model, sources)
    for column, encoded in enumerate(model.encode(sources)):
        assert set(ids[:, column]) <= set(encoded.shortlist.tolist())


def test_the_lists_of_neighbours_change_nothing(model):
    sources = [source_of(n, n) for n in (3, 9, 30, 5)]
    together_ids, together_log_p = greedy(model, sources)
    for column, source in enumerate(sources):
        ids, log_p = greedy(model, [source])
        np.testing.assert_array_equal(ids[:, 0], together_ids[:, column])
        np.testing.assert_allclose(log_p[:, 0], together_log_p[:, column], atol=1e-2)


def test_an_end_that_is_suppressed_does_not_come(model):
    ids, log_p = greedy(model, [[2], [2]], num_steps=6, least=4)
    assert model.eos_id not in ids[:4]
    assert np.isfinite(log_p).all()


def test_lists_and_biases_are_bound_again_only_if_they_change(model, monkeypatch):
    bound, bind_input = [], Tensor.bind_input

    def counted(tensor, binding, name):
        bound.append(name)
        bind_input(tensor, binding, name)

    cache = model.new_cache(model.step_for(1), 1, 2, CachePool(model.cache_sizes))
    for slot, encoded in enumerate(model.encode([source_of(9), source_of(5)])):
        cache.load(slot, encoded)

    def step(num_slots, bias):
        num_tokens = cache.num_step_tokens
        tokens = np.full(num_slots, model.start_token_id)
        lengths = np.zeros(num_slots, np.int32)  # each step decodes the first tokens
        bound.clear()
        found = cache.step(num_slots, StepInput(tokens, lengths, 1, [bias] * num_tokens))
        return found.token_ids[:, 0].tolist(), len(bound)

    (first, second), _ = step(2, NO_TOKEN_BIAS)
    no_first = TokenBias(np.array([[0, first]]), np.array([-np.inf], np.float32))
    monkeypatch.setattr(Tensor, "bind_input", counted)
    assert step(2, NO_TOKEN_BIAS) == ([first, second], 0)
    (other, same), num_bound = step(2, no_first)
    assert other != first
    assert same == second
    assert num_bound == 2 + 2 * cache.num_step_tokens
    assert step(2, no_first) == ([other, second], 0)
    assert step(2, NO_TOKEN_BIAS)[0] == [first, second]
    assert step(1, no_first)[0] == [other]
    assert step(2, NO_TOKEN_BIAS) == ([first, second], num_bound)  # released in the meantime


def without_shortlists(bundle):
    for graphs in bundle.manifest.precisions:
        for step in [step for step in graphs.steps if step.inputs.shortlist]:
            graphs.steps.remove(step)
    return bundle


def test_a_bundle_without_shortlists_is_decoded_with_its_whole_vocabulary(translation_bundle):
    bundle = without_shortlists(read_bundle(translation_bundle, "fp32", "cpu"))
    model = translation_model(bundle, uses_shortlists=True)
    assert not model.uses_shortlists
    assert model.encode([[5, 2]])[0].shortlist is None


@pytest.mark.parametrize(
    ("shortlists", "has_some", "message"),
    [
        ("never", True, ""),
        ("auto", True, ""),
        ("auto", False, "event=no_shortlists model=tiny-en-de/1"),
    ],
)
def test_shortlists_are_used_on_request_where_there_are_some(
    translation_bundle, shortlists, has_some, message, caplog
):
    bundle = read_bundle(translation_bundle, "fp32", "cpu")
    loader = ModelLoader(Settings(shortlists=shortlists), NoMetrics())
    model = loader._translation_model(bundle if has_some else without_shortlists(bundle))
    assert model.uses_shortlists == (has_some and shortlists == "auto")
    assert [record.getMessage() for record in caplog.records] == [message] * bool(message)
