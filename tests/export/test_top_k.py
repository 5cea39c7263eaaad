import numpy as np
import pytest
from attendant_export.graphs.builder import WeightFile
from attendant_export.graphs.layers import Layers

from tests.support.graphs import open_session, run


@pytest.fixture(
    scope="module",
    params=[(8000, False), (1009, False), (1024, True)],
    ids=["blocks", "no divisor", "dynamic width"],
)
def top_k(request, tmp_path_factory):
    (width, is_dynamic), folder = request.param, tmp_path_factory.mktemp("top_k")
    with WeightFile(folder / "weights.bin") as weights:
        g = Layers("top_k", weights, {}, np.float32)
        k = g.input("k", np.int64, 1)
        x = g.input("x", np.float32, "rows", "width" if is_dynamic else width)
        best, places = g.top_k_of_units(x, k) if is_dynamic else g.top_k(x, k, width)
        g.output("best", best, np.float32, "rows", "k")
        g.output("places", places, np.int64, "rows", "k")
        session = open_session(folder, g.write(folder / "top_k.onnx"))

    def find(x, k):
        found = run(session, x=x, k=np.array([k]))
        return found["best"], found["places"]

    return width, find


@pytest.mark.parametrize("k", [1, 8, 95, 500])
def test_the_largest_are_found_best_first(top_k, k):
    width, find = top_k
    x = np.random.default_rng(k).normal(size=(5, width)).astype(np.float32)
    best, places = find(x, k)
    np.testing.assert_array_equal(places, np.argsort(-x, axis=1)[:, :k])
    np.testing.assert_array_equal(best, np.take_along_axis(x, places, axis=1))


def test_the_largest_may_all_be_neighbours_or_all_far_apart(top_k):
    width, find = top_k
    x = np.zeros((2, width), np.float32)
    x[0, 300:308] = np.arange(1, 9)
    x[1, :: width // 7] = np.arange(1, 9)[: len(x[1, :: width // 7])]
    for k in (1, 4, 8):
        np.testing.assert_array_equal(find(x, k)[0], -np.sort(-x, axis=1)[:, :k])


def test_what_is_suppressed_comes_last(top_k):
    width, find = top_k
    x = np.full((1, width), -np.inf, np.float32)
    x[0, 17] = -5
    best, places = find(x, 3)
    assert places[0, 0] == 17
    np.testing.assert_array_equal(best, [[-5, -np.inf, -np.inf]])
    assert len(set(places[0].tolist())) == 3
