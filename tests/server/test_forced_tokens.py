"""Forced tokens: every hypothesis begins with them, as if the model were certain of them."""

import numpy as np
import pytest
from attendant_server.engine.cache_budget import CacheBudget
from attendant_server.engine.calls import SearchOptions, SearchTooLarge, TranslateCall
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.test_token_rules import new_scheduler, search_together
from tests.server.test_translation_scheduler import forbidden_tokens
from tests.support.fake_model import EOS, VOCAB, FakeTranslationModel


class CertainModel(FakeTranslationModel):
    """A model for which forced tokens have a probability of 1, and forbidden ones of 0."""

    def __init__(self, options, num_greedy_tokens):
        super().__init__(num_greedy_tokens)
        self.options = options

    def log_probabilities(self, source, prefix):
        forced = self.options.forced_token_ids
        if len(prefix) >= len(forced):
            found = list(super().log_probabilities(source, prefix))
            for token in forbidden_tokens(self.options, prefix):
                found[token] = -np.inf
            return found
        found = [-np.inf] * VOCAB
        found[forced[len(prefix)]] = 0.0
        return found


@st.composite
def searches(draw):
    """A source and options with forced tokens."""
    beam_size = draw(st.sampled_from([1, 1, 2, 4]))
    max_output_tokens = draw(st.integers(1, 10))
    tokens = st.integers(0, VOCAB - 1).filter(lambda token: token != EOS)
    return draw(st.tuples(st.integers(3, 20), st.integers(3, 20))), SearchOptions(
        max_output_tokens,
        beam_size,
        num_hypotheses=draw(st.integers(1, beam_size)),
        length_penalty=draw(st.sampled_from([0.0, 0.6, 1.0])),
        min_output_tokens=draw(st.integers(0, max_output_tokens)),
        forced_token_ids=tuple(draw(st.lists(tokens, max_size=4))),
        suppressed_token_ids=tuple(draw(st.sets(st.integers(3, VOCAB - 1)))),
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 1, 2])),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(searches(), min_size=1, max_size=8), st.sampled_from([1, 2, 3]))
def test_searches_go_on_as_over_a_model_that_is_certain_of_the_forced_tokens(
    wanted, num_greedy_tokens
):
    found = search_together(FakeTranslationModel(num_greedy_tokens), wanted)
    for (source, options), hypotheses in zip(wanted, found, strict=True):
        model = CertainModel(options, num_greedy_tokens)
        plain = options._replace(
            forced_token_ids=(),
            min_output_tokens=0,
            suppressed_token_ids=(),
            no_repeat_ngram_size=0,
        )
        assert [hypotheses] == search_together(model, [(source, plain)])
        num_forced = min(len(options.forced_token_ids), options.max_output_tokens)
        for hypothesis in hypotheses:
            assert hypothesis.token_ids[:num_forced] == options.forced_token_ids[:num_forced]
            assert not any(hypothesis.log_probabilities[:num_forced])


@settings(max_examples=40, deadline=None)
@given(st.lists(searches(), min_size=1, max_size=6), st.sampled_from([1, 2, 3]))
def test_prefixes_of_the_sources_of_a_call_are_forced_after_the_common_tokens(wanted, num_tokens):
    [(_, options), *_] = wanted
    common = options.forced_token_ids
    sources = [source for source, _ in wanted]
    prefixes = [each.forced_token_ids for _, each in wanted]
    call = TranslateCall(sources, options, prefixes=prefixes)
    scheduler = new_scheduler(FakeTranslationModel(num_tokens))
    scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    alone = [
        (source, options._replace(forced_token_ids=(*common, *prefix)))
        for source, prefix in zip(sources, prefixes, strict=True)
    ]
    assert call.future.result() == search_together(FakeTranslationModel(num_tokens), alone)


def test_the_default_limit_grows_by_the_prefix():
    options = SearchOptions(60, forced_token_ids=(5,), max_output_ratio=3, extra_output_tokens=16)
    call = TranslateCall([(3, EOS)] * 2, options, prefixes=[(), (7, 8, 9)])
    plain, prefixed = (call.options_for(i, 2) for i in range(2))
    assert (plain.max_output_tokens, plain.forced_token_ids) == (22, (5,))
    assert (prefixed.max_output_tokens, prefixed.forced_token_ids) == (25, (5, 7, 8, 9))


def test_a_search_that_is_too_large_because_of_its_prefix_is_refused():
    def needed_bytes(width, num_sentences, longest_row, longest_source):
        return num_sentences * (width * longest_row + longest_source)

    options = SearchOptions(60, max_output_ratio=3, extra_output_tokens=16)
    budget = CacheBudget(24, 8, 8, needed_bytes)
    sources = [(3, EOS)] * 2
    budget.check(TranslateCall(sources, options), [2, 2], [0, 0])
    with pytest.raises(SearchTooLarge) as refused:
        budget.check(TranslateCall(sources, options, prefixes=[(), (7,)]), [2, 2], [0, 0])
    assert list(refused.value.problems) == [1]
