from typing import Any

import pytest
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.runs.translation import greedy
from attendant_export.verify import reference_search as search
from attendant_export.verify.agreement import trace_of
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.reference_search import ReferenceHypothesis

from tests.support.graphs import manifest_of, tiny_transformer

SOURCES = [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2], [11, 30, 6, 17, 25, 2]]
MAX_TOKENS = 12
BATCHINGS: dict[str, Any] = {
    "single": {"max_running": 1},
    "batched": {"max_running": len(SOURCES)},
    "ragged": {"max_running": 3, "max_joining": 1},
}


@pytest.fixture(scope="module")
def model():
    return tiny_transformer(norm_first=True)


@pytest.fixture(scope="module")
def graphs(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return TranslationGraphs(
        folder, write_translation_graphs(model, "fp32", folder), manifest_of(model)
    )


def tokens(hypotheses):
    return [hypothesis.token_ids for hypothesis in hypotheses]


def test_greedy_search_is_the_same_with_and_without_cache(model):
    cached = greedy(model, SOURCES, MAX_TOKENS)

    assert list(map(tuple, cached)) == tokens(search.greedy(model, SOURCES, MAX_TOKENS))


def test_greedy_search_is_the_same_alone_and_in_a_batch(model):
    alone = [greedy(model, [source], MAX_TOKENS)[0] for source in SOURCES]

    assert alone == greedy(model, SOURCES, MAX_TOKENS)


def test_a_beam_of_one_is_greedy_search(model):
    hypotheses = search.greedy(model, SOURCES, MAX_TOKENS)
    beams = [search.beam(model, source, 1, MAX_TOKENS).hypotheses for source in SOURCES]

    assert tokens(hypotheses) == [tokens(found)[0] for found in beams]
    assert all(len(found) == 1 for found in beams)


def test_beam_hypotheses_are_distinct_and_sorted_by_score(model):
    for source in SOURCES:
        found = search.beam(model, source, 4, MAX_TOKENS).hypotheses
        scores = [hypothesis.score() for hypothesis in found]

        assert scores == sorted(scores, reverse=True)
        assert len(set(tokens(found))) == 4


def test_a_search_ends_with_the_end_token_or_at_the_limit(model):
    for hypothesis in search.beam(model, SOURCES[0], 4, 5).hypotheses:
        assert 2 not in hypothesis.token_ids[:-1]
        assert hypothesis.token_ids[-1] == 2 or len(hypothesis.token_ids) == 5


def test_log_probabilities_of_a_search_are_those_of_teacher_forcing(model):
    found = search.greedy(model, SOURCES, MAX_TOKENS)

    scored = search.score(model, SOURCES, tokens(found))

    for hypothesis, values in zip(found, scored, strict=True):
        assert hypothesis.log_probabilities == pytest.approx(values, abs=1e-5)


def test_a_score_is_the_mean_log_probability():
    assert ReferenceHypothesis((5, 2), (-1.0, -2.0)).score() == -1.5


@pytest.mark.parametrize("batching", BATCHINGS)
def test_greedy_search_over_the_graphs_finds_the_tokens_of_the_model(model, graphs, batching):
    found = search_all(graphs, SOURCES, [MAX_TOKENS] * 4, **BATCHINGS[batching])

    expected = search.greedy(model, SOURCES, MAX_TOKENS)
    assert [trace.hypotheses[0].token_ids for trace in found] == tokens(expected)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_beam_search_over_the_graphs_finds_the_hypotheses_of_the_model(model, graphs, batching):
    found = search_all(graphs, SOURCES, [MAX_TOKENS] * 4, beam_size=4, **BATCHINGS[batching])

    for source, trace in zip(SOURCES, found, strict=True):
        expected = search.beam(model, source, 4, MAX_TOKENS)
        assert tokens(trace.hypotheses) == tokens(expected.hypotheses)
        for step, expected_step in zip(trace.steps, expected.steps, strict=True):
            assert tokens(step.best) == tokens(expected_step.best)
            assert tokens(step.running) == tokens(expected_step.running)


def test_each_sentence_has_a_limit_of_its_own(graphs):
    found = search_all(graphs, SOURCES, [1, 2, 3, 4], max_running=2)

    for limit, trace in zip([1, 2, 3, 4], found, strict=True):
        assert len(trace.hypotheses[0].token_ids) <= limit


def test_a_trace_of_one_hypothesis_has_a_step_for_each_token():
    trace = trace_of(ReferenceHypothesis((5, 2), (-1.0, -2.0)))

    assert [tokens(step.best) for step in trace.steps] == [[(5,)], [(5, 2)]]
    assert [tokens(step.running) for step in trace.steps] == [[(5,)], []]
