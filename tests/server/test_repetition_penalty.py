"""The repetition penalty in searches and in steps of models. Scores rank, probabilities stay."""

from math import inf

import numpy as np
import pytest
from attendant.v1.bundle_pb2 import StepGraph
from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.models import NO_TOKEN_BIAS, StepInput, TokenBias, TokenPenalties
from attendant_server.engine.repetition_penalty import token_penalties
from attendant_server.runtime.cache_pool import CachePool

from tests.support.models import random_bundle, translation_model

START, EOS, VOCAB = 1, 2, 50
OPTIONS = SearchOptions(max_output_tokens=9, beam_size=2, num_hypotheses=2)


def test_every_token_of_a_row_and_its_begin_token_is_penalized_once():
    greedy = GreedySearch(SearchOptions(max_output_tokens=9), START, EOS)
    for token in (5, 6, 5):
        greedy.advance([[token]], [[-1.0]])
    beams = BeamSearch(OPTIONS, START, EOS)
    beams.advance([[7, 8, 9, EOS]] * 2, [[-1.0, -2.0, -3.0, -4.0]] * 2)
    found = token_penalties([(0, greedy, 1.5, START), (4, beams, 0.5, None)])
    pairs = sorted(zip(map(tuple, found.positions.tolist()), found.values.tolist(), strict=True))
    assert pairs == [
        *(((0, START), 1.5), ((0, 5), 1.5), ((0, 6), 1.5)),
        *(((4, 7), 0.5), ((5, 8), 0.5)),
    ]


def test_beams_are_ranked_by_scores_and_report_log_probabilities():
    search = BeamSearch(OPTIONS, START, EOS)
    search.advance([[7, 8, 9, EOS]] * 2, [[-1.0, -2.0, -3.0, -4.0]] * 2)
    # The penalty makes the likelier end worse than the other one.
    candidates = [[EOS, 3, 4, 5], [EOS, 3, 4, 5]]
    scores = [[-5.0, -7.0, -8.0, -9.0], [-1.0, -7.0, -8.0, -9.0]]
    search.advance(candidates, [[-0.5, -7.0, -8.0, -9.0], [-1.0, -7.0, -8.0, -9.0]], scores)
    while not search.is_finished:
        search.advance([[EOS, 3, 4, 5]] * 2, [[-20.0, -21.0, -22.0, -23.0]] * 2)
    best, second = search.hypotheses()
    assert (best.token_ids, best.log_probabilities, best.score) == ((8, EOS), (-2.0, -1.0), -1.5)
    assert (second.token_ids, second.log_probabilities) == ((7, EOS), (-1.0, -0.5))
    assert second.score == -0.75


def test_a_greedy_search_is_dropped_by_its_score():
    search = GreedySearch(SearchOptions(max_output_tokens=9), START, EOS)
    search.advance([[5]], [[-1.0]], [[-inf]])
    assert search.is_finished
    assert search.hypotheses() == []


def first_step(model, bias=NO_TOKEN_BIAS, **penalties):
    """All candidates of the first step of two rows of one sentence."""
    cache = model.new_cache(model.step_for(2), 2, 1, CachePool(model.cache_sizes))
    [source] = model.encode([[5, 6, 7, EOS]])
    cache.load(0, source)
    tokens, lengths = np.full(2, START), np.zeros(2, np.int32)
    return cache.step(1, StepInput(tokens, lengths, VOCAB, [bias], **penalties))


def by_token(candidates, values):
    """Values (rows, vocab) by token ids."""
    found = np.empty_like(values)
    np.put_along_axis(found, candidates.token_ids, values, axis=1)
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_a_step_multiplies_log_probabilities_of_the_penalized_tokens(precision, tmp_path):
    plain = first_step(translation_model(random_bundle(tmp_path, 20, precision)))
    assert plain.scores is None
    expected = by_token(plain, plain.log_probabilities)
    model = translation_model(random_bundle(tmp_path, 20, precision, penalizes_repetition=True))
    positions, values = np.array([[0, 3], [0, 9], [1, 9]]), np.array([2, 0.5, 3], np.float32)
    found = first_step(
        model,
        TokenBias(np.array([[1, 4]]), np.array([-np.inf], np.float32)),
        penalties=TokenPenalties(positions, values),
    )
    assert found.scores is not None
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_allclose(by_token(found, found.log_probabilities), expected, rtol=1e-6)
    expected[0, 3] *= 2
    expected[0, 9] *= 0.5
    expected[1, 9] *= 3
    expected[1, 4] = -np.inf
    np.testing.assert_allclose(by_token(found, found.scores), expected, rtol=1e-6)
    again = first_step(model)
    np.testing.assert_array_equal(again.scores, again.log_probabilities)


@pytest.mark.parametrize("swapped", ["scores", "values", "indices"])
def test_swapped_roles_of_penalties_are_refused(swapped, tmp_path):
    bundle = random_bundle(tmp_path, 20, "fp32", penalizes_repetition=True)
    [step] = (each for each in bundle.graphs.steps if each.name == "decoder_step")
    swap(step, swapped)
    with pytest.raises(ValueError, match="step decoder_step"):
        translation_model(bundle)


def swap(step: StepGraph, role: str) -> None:
    outputs, penalty, bias = step.outputs, step.inputs.repetition_penalty, step.inputs.token_biases
    if role == "scores":
        outputs.candidate_scores, outputs.candidate_log_probabilities = (
            outputs.candidate_log_probabilities,
            outputs.candidate_scores,
        )
    else:
        ours, theirs = getattr(penalty, role), getattr(bias[0], role)
        setattr(penalty, role, theirs)
        setattr(bias[0], role, ours)
