"""The rule against repeated n-grams, and the joint biases of its rows."""

import numpy as np
import pytest
from attendant_server.engine import token_rules
from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.repeated_ngrams import NoRepeatedNgrams
from attendant_server.engine.token_rules import TokenBiases, rules_of
from hypothesis import given
from hypothesis import strategies as st

BOS, EOS = 0, 1


@given(st.integers(1, 5), st.lists(st.integers(0, 3), max_size=30))
def test_the_forbidden_tokens_are_those_that_complete_an_earlier_ngram(size, token_ids):
    tokens = [BOS, *token_ids]
    ngrams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
    last = tokens[len(tokens) - size + 1 :]
    expected = {ngram[-1] for ngram in ngrams if ngram[:-1] == last}
    bias = NoRepeatedNgrams(size, BOS).row_bias(len(token_ids), token_ids)
    assert (set() if bias is None else set(bias.token_ids.tolist())) == expected


def test_the_rows_of_all_sentences_are_joined_once(monkeypatch: pytest.MonkeyPatch):
    options = SearchOptions(9, 2, no_repeat_ngram_size=1)
    ruled = []
    for first_row, tokens in ((0, (5, 6)), (2, (7, 8))):
        search = BeamSearch(options, BOS, EOS)
        search.advance([[*tokens, 2, 3]] * 2, [[-1.0, -2.0, -3.0, -4.0]] * 2)
        ruled.append((first_row, search, rules_of(options, BOS, EOS)))
    monkeypatch.setattr(token_rules, "_repeated", None)  # the bias of one row at a time
    (bias,) = TokenBiases(2).of(ruled, 1)
    found = sorted(map(tuple, bias.positions.tolist()))
    assert found == [(0, 0), (0, 5), (1, 0), (1, 6), (2, 0), (2, 7), (3, 0), (3, 8)]
    assert np.isneginf(bias.values).all()
