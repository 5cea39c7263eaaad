"""Number formats of vectors."""

import numpy as np
import pytest
from attendant_server.application.data_types import DataType, converted
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=9), elements=FLOATS)


@given(VECTORS)
def test_float16_is_the_nearest_number_within_the_range(vectors):
    found = converted(vectors, DataType.FLOAT16)
    assert found.numbers.dtype == np.dtype("<f2")
    assert np.isfinite(found.numbers).all()
    np.testing.assert_array_equal(found.numbers, np.clip(vectors, -65504, 65504).astype(np.float16))


@given(VECTORS)
@example(np.array([[0, 0], [1e-45, 0]], np.float32))
@example(np.array([[3.4e38, -3.4e38]], np.float32))
@pytest.mark.parametrize(("data_type", "zero"), [(DataType.INT8, 0), (DataType.UINT8, 128)])
def test_integers_times_the_scale_of_their_row_are_the_values(data_type, zero, vectors):
    found = converted(vectors, data_type)
    assert found.scales is not None
    assert found.scales.shape == vectors.shape[:-1]
    numbers = found.numbers.astype(np.float64) - zero
    assert np.abs(numbers).max() <= 127
    scales = found.scales.astype(np.float64)[..., None]
    error = np.abs(numbers * scales - vectors)
    largest = np.abs(vectors).max(-1, keepdims=True)
    assert (error <= largest * (0.5 / 127 + 1e-6) + 1e-42).all()
    assert not numbers[np.broadcast_to(largest == 0, numbers.shape)].any()


@given(VECTORS)
def test_bits_are_the_signs_in_packed_rows(vectors):
    found = converted(vectors, DataType.BINARY)
    assert found.scales is None
    dimension = vectors.shape[-1]
    assert found.numbers.shape == (*vectors.shape[:-1], (dimension + 7) // 8)
    bits = np.unpackbits(found.numbers, axis=-1)
    np.testing.assert_array_equal(bits[..., :dimension], vectors > 0)
    assert not bits[..., dimension:].any()


@given(VECTORS, st.sampled_from(DataType))
def test_a_row_takes_as_many_bytes_as_its_data_type_says(vectors, data_type):
    num_rows = int(np.prod(vectors.shape[:-1]))
    size = num_rows * data_type.row_bytes(vectors.shape[-1])
    assert len(converted(vectors, data_type).numbers.tobytes()) == size


@given(VECTORS, st.sampled_from(DataType))
def test_a_vector_does_not_depend_on_the_vectors_beside_it(vectors, data_type):
    whole = converted(vectors, data_type)
    alone = converted(vectors[:1], data_type)
    np.testing.assert_array_equal(whole.numbers[:1], alone.numbers)
