"""Searches end hypotheses where their caller finds something in them."""

import pytest
from attendant_server.engine.calls import Sampling, SearchOptions, TranslateCall
from attendant_server.engine.translation_scheduler import TranslationScheduler

from tests.support.fake_model import (
    EOS,
    FakeLanguageModel,
    FakeTranslationModel,
    RecordingObserver,
    log_probabilities,
)
from tests.support.limits import translation_limits

SOURCES = [(5, 6, 7), (9,), (3, 14, 15, 9), (8, 8), (4, 20, 11)]
STOPPING = (6, 13, 21)
"""Tokens that end a hypothesis in these tests."""
SEARCHES = {
    "beams": {"beam_size": 4, "num_hypotheses": 4},
    "diverse beams": {"beam_size": 4, "num_hypotheses": 4, "num_beam_groups": 2},
    "alternatives": {"num_hypotheses": 3, "num_alternatives": 3},
}


def stops(token_ids):
    return token_ids[-1] in STOPPING


def answers(model, options, stops_of_sources=(), seeds=()):
    limits = translation_limits(max_rows=16, max_queued_texts=60, max_encode_tokens=64)
    scheduler = TranslationScheduler("fake", model, limits, RecordingObserver(), lambda: 0.0)
    call = TranslateCall(SOURCES, options, seeds=seeds, stops=stops_of_sources)
    scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    return call.future.result()


def up_to_stop(token_ids):
    number = next((i for i, token in enumerate(token_ids, 1) if token in STOPPING), len(token_ids))
    return token_ids[:number]


@pytest.mark.parametrize("num_step_tokens", [1, 2, 5])
@pytest.mark.parametrize("kind", [FakeTranslationModel, FakeLanguageModel])
def test_greedy_search_ends_with_the_token_that_stops_it(kind, num_step_tokens):
    options = SearchOptions(14, min_output_tokens=10)
    free = answers(kind(num_step_tokens), options)
    # The second source has no stops, so that others share their steps with it.
    own = [stops, None, stops, stops, stops]
    found = answers(kind(num_step_tokens), options, own)
    assert any(stops(each.token_ids) for [each] in found)
    for [each], [other], rule in zip(found, free, own, strict=True):
        assert each.token_ids == (up_to_stop(other.token_ids) if rule else other.token_ids)
        is_stopped = rule is not None and stops(each.token_ids)
        assert each.is_complete == (is_stopped or each.token_ids[-1] == EOS)
        assert each.log_probabilities == other.log_probabilities[: len(each.token_ids)]
        assert each.score == pytest.approx(sum(each.log_probabilities) / len(each.token_ids))


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_each_hypothesis_of_several_ends_with_the_token_that_stops_it(search):
    options = SearchOptions(14, **search)
    found = answers(FakeLanguageModel(), options, [stops] * len(SOURCES))
    ends = [each.token_ids[-1] for hypotheses in found for each in hypotheses]
    assert set(ends) & {*STOPPING}
    for source, hypotheses in zip(SOURCES, found, strict=True):
        for each in hypotheses:
            assert up_to_stop(each.token_ids) == each.token_ids
            assert each.is_complete == (each.token_ids[-1] in (EOS, *STOPPING))
            expected = [
                log_probabilities(source, each.token_ids[:i])[token]
                for i, token in enumerate(each.token_ids)
            ]
            assert each.log_probabilities == pytest.approx(expected)


def test_a_sample_ends_with_the_token_that_stops_it():
    options = SearchOptions(14, sampling=Sampling(temperature=1.0, top_k=8))
    seeds = [str(i) for i in range(len(SOURCES))]
    free = answers(FakeLanguageModel(), options, seeds=seeds)
    found = answers(FakeLanguageModel(), options, [stops] * len(SOURCES), seeds)
    for [each], [other] in zip(found, free, strict=True):
        assert each.token_ids == up_to_stop(other.token_ids)


def test_a_search_that_backs_out_of_a_loop_can_stop_later():
    class LoopingModel(FakeLanguageModel):
        """Repeats two tokens until one of them is forbidden, and then gives another one."""

        def log_probabilities(self, source, prefix):
            wanted = 7 if len(prefix) % 2 else 8
            return [-1.0 if t == wanted else -5.0 if t == 13 else -9.0 for t in range(24)]

    options = SearchOptions(40, repetition_guard=True)
    [[found], *_] = answers(LoopingModel(), options, [stops] * len(SOURCES))
    assert found.num_rewinds == 1
    assert found.token_ids == (8, 7, 13)
    assert found.is_complete
