"""The cosine of two embeddings for all values of components."""

import math

import numpy as np
import pytest
from attendant_client import messages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# Slow examples on a busy machine are not failures of the client.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SIZES = st.integers(1, 300)
VECTORS = SIZES.flatmap(lambda size: arrays(np.float32, size, elements=NUMBERS))
PAIRS = SIZES.flatmap(lambda size: arrays(np.float32, (2, size), elements=NUMBERS))


@UNHURRIED
@given(VECTORS)
def test_the_cosine_of_a_vector_and_itself_is_one_or_zero_for_a_zero_vector(vector):
    cosine = messages.cosine(np.stack([vector, vector]))
    assert cosine <= 1.0
    assert cosine == pytest.approx(1.0 if vector.any() else 0.0, abs=1e-12)


@UNHURRIED
@given(PAIRS)
def test_a_cosine_lies_between_minus_one_and_one(pair):
    assert -1.0 <= messages.cosine(pair) <= 1.0


@UNHURRIED
@given(VECTORS, st.sampled_from([-1.0, -0.3, 0.3, 0.7]))
def test_the_cosine_of_parallel_vectors_lies_between_minus_one_and_one(vector, factor):
    assert -1.0 <= messages.cosine(np.stack([vector, vector * np.float32(factor)])) <= 1.0


@pytest.mark.parametrize("seed", range(20))
def test_the_cosine_of_a_unit_vector_and_itself_is_exactly_one(seed):
    vector = np.random.default_rng(seed).normal(size=256).astype(np.float32)
    vector /= np.linalg.norm(vector)
    assert messages.cosine(np.stack([vector, vector])) == 1.0


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_the_cosine_of_a_vector_that_is_not_finite_is_nan(number):
    vectors = np.array([[number, 1.0], [1.0, 1.0]], dtype=np.float32)
    with np.errstate(invalid="ignore"):
        assert math.isnan(messages.cosine(vectors))
