"""Sampling: probabilities of drawn tokens, and independence of seeds and neighbours."""

from collections import Counter
from math import exp, inf, log

import pytest
from attendant_server.engine.calls import Sampling, SearchOptions, TranslateCall
from attendant_server.engine.sampling import SampledSearch, num_allowed
from attendant_server.engine.translation_scheduler import TranslationScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_model import (
    BOS,
    EOS,
    VOCAB,
    FakeCache,
    FakeTranslationModel,
    RecordingObserver,
)
from tests.support.limits import translation_limits

PROBABILITIES = [0.5, 0.25, 0.125, 0.1, 0.025]
TOKENS = [7, 4, 9, 3, 8]
SCORES = [log(p) for p in PROBABILITIES]
ANY = Sampling(1.0, 256)
NUM_DRAWS = 4000


def options_with(sampling, **changed):
    return SearchOptions(max_output_tokens=12, sampling=sampling, **changed)


def frequencies(sampling, scores=SCORES, given_scores=None):
    """How often each token is drawn as the first one, over many seeds."""
    drawn: Counter[int] = Counter()
    for seed in range(NUM_DRAWS):
        search = SampledSearch(options_with(sampling), str(seed), BOS, EOS)
        search.advance([TOKENS], [scores], None if given_scores is None else [given_scores])
        drawn[search.next_tokens[0]] += 1
    return [drawn[token] / NUM_DRAWS for token in TOKENS]


def renormalized(probabilities):
    return [p / sum(probabilities) for p in probabilities] + [0] * (5 - len(probabilities))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (ANY, PROBABILITIES),
        (Sampling(0.5, 256), renormalized([p**2 for p in PROBABILITIES])),
        (Sampling(2.0, 256), renormalized([p**0.5 for p in PROBABILITIES])),
        (Sampling(1.0, 2), renormalized(PROBABILITIES[:2])),
        (Sampling(1.0, 256, top_p=0.74), renormalized(PROBABILITIES[:2])),
        (Sampling(1.0, 4, top_p=0.8), renormalized(PROBABILITIES[:3])),
        (Sampling(1.0, 256, min_p=0.21), renormalized(PROBABILITIES[:3])),
        (Sampling(1e-30, 256), [1, 0, 0, 0, 0]),
        (Sampling(1.0, 1), [1, 0, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_by_their_renormalized_probabilities(sampling, expected):
    assert frequencies(sampling) == pytest.approx(expected, abs=0.03)


def test_scores_decide_and_log_probabilities_are_reported():
    scores = [log(0.9), log(0.1), -inf, -inf, -inf]
    assert frequencies(ANY, given_scores=scores) == pytest.approx([0.9, 0.1, 0, 0, 0], abs=0.03)
    search = SampledSearch(options_with(Sampling(1.0, 1)), "1", BOS, EOS)
    search.advance([TOKENS], [SCORES], [scores])
    search.advance([[EOS, 5]], [[-0.25, -2.0]])
    [found] = search.hypotheses()
    assert (found.token_ids, found.log_probabilities) == ((7, EOS), (SCORES[0], -0.25))


@given(
    st.lists(st.floats(-40, 0), min_size=1, max_size=30).map(lambda s: sorted(s, reverse=True)),
    st.builds(
        Sampling,
        st.floats(1e-3, 100),
        st.integers(1, 40),
        st.floats(0, 1, exclude_min=True),
        st.floats(0, 1),
    ),
)
def test_the_likeliest_tokens_are_kept_and_no_more_than_wanted(scores, sampling):
    number, weights = num_allowed(scores, sampling)
    assert 1 <= number <= min(len(scores), sampling.top_k)
    assert all(weight >= sampling.min_p and weight > 0 for weight in weights[:number])
    if number > 1:
        before = sum(exp((s - scores[0]) / sampling.temperature) for s in scores[: number - 1])
        assert before <= sampling.top_p * sum(weights) * (1 + 1e-9)


def test_candidates_whose_ranks_rounding_swaps_are_drawn_alike():
    scores = [log(0.3), log(0.3) - 1e-9, log(0.3) - 2e-9, log(0.1)]
    for seed in range(200):
        drawn = set()
        for order in ((0, 1, 2, 3), (2, 0, 1, 3), (1, 2, 0, 3)):
            search = SampledSearch(options_with(ANY), str(seed), BOS, EOS)
            search.advance([[TOKENS[i] for i in order]], [scores])
            drawn |= set(search.next_tokens)
        assert len(drawn) == 1


def test_a_search_whose_tokens_are_all_forbidden_is_dropped():
    search = SampledSearch(options_with(ANY), "1", BOS, EOS)
    search.advance([TOKENS], [[-inf] * 5])
    assert search.is_finished
    assert search.hypotheses() == []


@st.composite
def searches(draw):
    """A source, options with or without sampling, and a seed."""
    is_sampled = draw(st.booleans())
    beam_size = 1 if is_sampled else draw(st.sampled_from([1, 2, 4]))
    least = draw(st.integers(0, 3))
    options = SearchOptions(
        draw(st.integers(max(1, least), 12)),
        beam_size,
        min_output_tokens=least,
        suppressed_token_ids=tuple(draw(st.sets(st.integers(3, VOCAB - 1), max_size=9))),
        forced_token_ids=tuple(draw(st.lists(st.integers(3, VOCAB - 1), max_size=3))),
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 2])),
        repetition_guard=draw(st.booleans()),
        sampling=Sampling(
            draw(st.sampled_from([0.3, 1.0, 3.0])), draw(st.sampled_from([1, 5, 200]))
        )
        if is_sampled
        else None,
    )
    return draw(st.tuples(st.integers(3, 20), st.integers(3, 20))), options, draw(st.text())


def search_together(model, wanted):
    limits = translation_limits(max_rows=16, max_queued_texts=200)
    scheduler = TranslationScheduler("fake", model, limits, RecordingObserver(), lambda: 0.0)
    calls = [TranslateCall([source], options, seeds=[seed]) for source, options, seed in wanted]
    for call in calls:
        scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    return [call.future.result()[0] for call in calls]


@settings(max_examples=60, deadline=None)
@given(st.lists(searches(), min_size=1, max_size=8), st.sampled_from([1, 2, 3]))
def test_samples_and_searches_in_one_batch_are_those_that_each_gets_alone(wanted, num_tokens):
    found = search_together(FakeTranslationModel(num_tokens), wanted)
    for each, hypotheses in zip(wanted, found, strict=True):
        assert [hypotheses] == search_together(FakeTranslationModel(num_tokens), [each])
        _, options, _ = each
        for hypothesis in hypotheses:
            num_forced = len(options.forced_token_ids)
            assert (
                hypothesis.token_ids[:num_forced]
                == options.forced_token_ids[:12][: len(hypothesis.token_ids)]
            )
            assert not set(hypothesis.token_ids[num_forced:]) & set(options.suppressed_token_ids)


@settings(max_examples=30, deadline=None)
@given(searches())
def test_the_best_of_one_candidate_is_greedy(wanted):
    source, options, seed = wanted
    greedy = options._replace(beam_size=1, sampling=None)
    sampled = greedy._replace(sampling=Sampling(2.0, 1))
    [expected], [found] = (
        search_together(FakeTranslationModel(), [(source, each, seed)])
        for each in (greedy, sampled)
    )
    assert found == expected


def test_searches_that_are_not_sampled_get_no_more_candidates_than_before():
    wanted = []

    class Cache(FakeCache):
        def step(self, num_slots, step_input):
            wanted.append((self.num_step_tokens, self.width, step_input.num_candidates))
            return super().step(num_slots, step_input)

    class Model(FakeTranslationModel):
        def new_cache(self, step, width, max_slots, pool=None):
            return Cache(self, width, max_slots, step)

    every = [options_with(None), options_with(None, beam_size=3), options_with(Sampling(1.0, 9))]
    model = Model(2)
    model.vocab_size = 1000
    search_together(model, [((5, 6), options, "seed") for options in every])
    assert set(wanted) == {(2, 1, 1), (1, 3, 6), (1, 1, 64)}
