"""Texts that are similar without having the same meaning, found by the vectors of a teacher."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.teacher_vectors import TeacherVectors

MAX_NEGATIVE_SIMILARITY = 0.9
"""Largest cosine of a teacher's vectors at which two texts count as different in meaning."""
SEARCHED_TEXTS = 4096
"""Texts of similar length among which similar ones are searched."""


def find_neighbours(
    vectors: TeacherVectors, rows: NDArray[np.int64], lengths: Sequence[int], count: int
) -> NDArray[np.int32]:
    """The ``count`` most similar items of each item, (items, count), the most similar one first.

    The item i has the length ``lengths[i]`` and the vector ``vectors[rows[i]]``. Only items of
    similar length are searched, and those above `MAX_NEGATIVE_SIMILARITY` are left out. -1 stands
    for no further item.
    """
    found = np.full((len(rows), count), -1, np.int32)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), SEARCHED_TEXTS):
        items = order[start : start + SEARCHED_TEXTS]
        nearest = _nearest(vectors[rows[items]], count)  # (items, up to count)
        found[items, : nearest.shape[1]] = np.where(nearest < 0, -1, items[nearest])
    return found


def _nearest(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The most similar allowed rows of each row of ``vectors``, -1 where there is none."""
    cosines = vectors @ vectors.T
    cosines[cosines > MAX_NEGATIVE_SIMILARITY] = -1
    np.fill_diagonal(cosines, -1)
    count = min(count, len(vectors))
    candidates = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(cosines, candidates, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    is_allowed = np.take_along_axis(values, order, axis=1) > -1
    return np.where(is_allowed, np.take_along_axis(candidates, order, axis=1), -1)


def followed_by_neighbours(
    order: NDArray[np.int64], neighbours: NDArray[np.int32]
) -> NDArray[np.int64]:
    """``order`` with the neighbours of each item right behind it. Each item occurs once."""
    places = bytearray(len(neighbours))
    near, result = neighbours.tolist(), list[int]()
    for item in order.tolist():
        if places[item]:
            continue
        for each in (item, *near[item]):
            if each >= 0 and not places[each]:
                places[each] = True
                result.append(each)
    return np.array(result, np.int64)
