from pathlib import Path

import attendant_server
import numpy as np
import pytest
from attendant_export.graphs.cache_copies import write_cache_graphs

from tests.support.graphs import open_onnx, run

COMMITTED = Path(attendant_server.__file__).parent / "runtime" / "graphs"


def test_the_graphs_of_the_server_are_what_is_written_now(tmp_path: Path):
    write_cache_graphs(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name: path.read_bytes() for path in COMMITTED.iterdir()} == written


@pytest.fixture
def copy():
    session = open_onnx(COMMITTED / "copy_positions.onnx")
    return lambda **inputs: run(session, **{k: np.array(v) for k, v in inputs.items()})["copied"]


def test_runs_of_positions_are_copied_and_their_ends_zeroed(copy):
    origin = np.arange(1, 13).reshape(6, 2)
    copied = copy(
        origin=origin,
        memory=np.full((8, 2), -1),
        origin_strips=[0, 3],
        origin_starts=[0],
        strips=[0, 4],
        starts=[1],
        num_positions=[3],
        num_kept=[2],
    )
    expected = np.full((8, 2), -1)
    expected[[1, 2, 5, 6]] = origin[[0, 1, 3, 4]]
    expected[[3, 7]] = 0
    assert np.array_equal(copied, expected)


def test_all_positions_are_read_before_any_is_written(copy):
    memory = np.arange(8).reshape(4, 2)
    copied = copy(
        origin=memory,
        memory=memory,
        origin_strips=[0],
        origin_starts=[2, 0],
        strips=[0],
        starts=[0, 2],
        num_positions=[2],
        num_kept=[2],
    )
    assert np.array_equal(copied, memory[[2, 3, 0, 1]])
