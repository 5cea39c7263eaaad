"""A table of requests that only a broken or malicious client sends.

After each, a neighbour's call is answered as before, the log holds no part of the input and no
traceback, and all gauges return to 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bad_inputs import count_rows, protobuf_rows, text_rows, wire_rows
from tests.e2e.bad_inputs.table import MARKER, BadInput
from tests.support.observed import ObservedServer, observed_server

ROWS = [*wire_rows.ROWS, *protobuf_rows.ROWS, *count_rows.ROWS, *text_rows.ROWS]
ROOT = str(Path(__file__).parents[3])
LEAKS = ("Traceback", "Error:", "google", "pb2", "site-packages", "python", ROOT)
"""Words that no message to a caller may hold."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedServer]:
    with observed_server(tmp_path_factory.mktemp("log"), "--handshake-seconds", "0.5") as server:
        yield server


@pytest.fixture(scope="module")
def good_answer(server: ObservedServer) -> Any:
    return server.good_answer()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_bad_input_is_refused_or_bears_no_harm(
    server: ObservedServer, good_answer: Any, row: BadInput
):
    outcome = row.send(server)
    assert outcome.code in row.expected.split(), outcome
    assert row.message in outcome.message
    assert len(outcome.message) < 200
    assert not [leak for leak in (*LEAKS, MARKER) if leak in outcome.message]
    assert server.good_answer() == good_answer
    assert server.is_serving
    server.wait_for_rest()
    log = server.new_log_lines()
    assert MARKER.lower() not in log.lower()
    assert "Traceback" not in log
    assert " ERROR " not in log


def test_the_table_has_at_least_sixty_rows_of_different_names():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 60
