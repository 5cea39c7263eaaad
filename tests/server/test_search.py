"""The prefix that all hypotheses that can still win share."""

import random
from math import inf
from os.path import commonprefix

import pytest
from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.beams import Beam
from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.search import num_candidates

BOS, EOS, VOCAB = 1, 2, 12


def random_candidates(rng, num_rows, num_tokens, share_impossible):
    """Different tokens for each row, the likeliest first; some are impossible."""
    token_ids = [rng.sample(range(VOCAB), num_tokens) for _ in range(num_rows)]
    log_probabilities = [
        sorted(
            (-inf if rng.random() < share_impossible else rng.uniform(-3, 0) for _ in tokens),
            reverse=True,
        )
        for tokens in token_ids
    ]
    return token_ids, log_probabilities


@pytest.mark.parametrize("seed", range(200))
def test_the_settled_prefix_of_beams_is_all_that_the_beams_that_can_win_share(seed):
    rng = random.Random(seed)
    width = rng.randint(2, 5)
    options = SearchOptions(rng.randint(1, 12), width, length_penalty=rng.choice([0.0, 1.0, 2.0]))
    search, share_impossible = BeamSearch(options, BOS, EOS), rng.choice([0, 0.5, 0.9])
    while not search.is_finished:
        search.advance(*random_candidates(rng, width, num_candidates(width), share_impossible))
        can_win = [*search._possible(), *search._finished[:1]]
        shared = tuple(commonprefix([beam.token_ids() for beam in can_win]))
        shared = shared[:-1] if shared[-1:] == (EOS,) else shared
        assert search.settled_prefix() == shared
        assert search.num_settled == len(shared)


@pytest.mark.parametrize("seed", range(50))
def test_all_tokens_of_a_greedy_search_but_the_end_token_are_settled(seed):
    rng = random.Random(seed)
    search = GreedySearch(SearchOptions(rng.randint(1, 12)), BOS, EOS)
    while not search.is_finished:
        search.advance(*random_candidates(rng, 1, rng.choice([1, 2, 3]), rng.choice([0, 0.1])))
        (tokens,) = search.prefixes()
        expected = tuple(token for token in tokens if token != EOS)
        assert search.settled_prefix() == expected
        assert search.num_settled == len(expected)


@pytest.mark.parametrize("seed", range(20))
def test_prefixes_are_those_of_the_beams_and_extend_those_of_the_step_before(seed, monkeypatch):
    rng = random.Random(seed)
    width = rng.randint(2, 5)
    search = BeamSearch(SearchOptions(12, width), BOS, EOS)
    search.prefixes()
    token_ids = Beam.token_ids
    while not search.is_finished:
        search.advance(*random_candidates(rng, width, num_candidates(width), 0.5))
        expected = [token_ids(beam) for beam in search._running]
        with monkeypatch.context() as patch:
            patch.setattr(Beam, "token_ids", None)  # would follow all parents of the beam
            assert search.prefixes() == search.prefixes() == expected
