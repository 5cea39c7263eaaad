"""The cosines of vectors for all values of components."""

import numpy as np
from attendant_server.application.similarity import cosines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# Slow examples on a busy machine are not failures of the server.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st.tuples(st.integers(1, 6), st.integers(1, 300)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=NUMBERS)
)


@UNHURRIED
@given(VECTORS)
def test_cosines_lie_between_minus_one_and_one_and_that_of_a_vector_and_itself_is_one(vectors):
    places = range(len(vectors))
    found = cosines(list(vectors), places, places)
    assert found.dtype == np.float32
    assert (np.abs(found) <= 1).all()
    np.testing.assert_array_equal(np.diag(found), vectors.any(axis=1))


@UNHURRIED
@given(VECTORS, st.sampled_from([-1.0, -0.3, 0.3, 0.7]))
def test_cosines_of_parallel_vectors_lie_between_minus_one_and_one(vectors, factor):
    pair = [vectors[0], vectors[0] * np.float32(factor)]
    assert np.abs(cosines(pair, [0], [1])).max() <= 1


@UNHURRIED
@given(VECTORS, st.data())
def test_a_text_that_comes_twice_has_the_same_score_in_all_places(vectors, data):
    places = st.lists(st.integers(0, len(vectors) - 1), min_size=1, max_size=40)
    queries, texts = data.draw(places), data.draw(places)
    found = cosines(list(vectors), queries, texts)
    scores: dict[tuple[int, int], float] = {}
    for query, row in zip(queries, found.tolist(), strict=True):
        for text, score in zip(texts, row, strict=True):
            assert scores.setdefault((query, text), score) == score


def test_there_are_no_scores_without_queries_or_texts():
    assert cosines([], [], []).shape == (0, 0)
    assert cosines([np.ones(3, np.float32)], [0], []).shape == (1, 0)
