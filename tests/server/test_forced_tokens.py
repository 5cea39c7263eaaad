"""Forced tokens: every hypothesis begins with them, as if the model were certain of them."""

import numpy as np
from attendant_server.engine.calls import SearchOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.test_token_rules import search_together
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
