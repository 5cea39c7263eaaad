import pytest
from attendant_server.loading import workers_and_rows
from attendant_server.settings import Settings


@pytest.mark.parametrize(
    ("given", "num_threads", "num_workers", "num_rows"),
    [
        ({}, 1, 1, 16),
        ({}, 3, 3, 48),
        ({}, 9, 4, 128),
        ({"num_workers": 1}, 3, 1, 48),
        ({"num_workers": 3}, 1, 3, 24),
        ({"max_beam_size": 20}, 2, 2, 40),
        ({"max_beam_size": 20, "max_rows": 32}, 2, 1, 32),
        ({"max_rows": 10}, 3, 1, 10),
        ({"max_rows": 1000}, 2, 2, 1000),
        ({"device": "cuda"}, 2, 1, 128),
        ({"device": "cuda", "max_rows": 512}, 2, 1, 512),
    ],
)
def test_workers_and_rows_follow_the_threads_unless_they_are_set(
    given, num_threads, num_workers, num_rows
):
    assert workers_and_rows(Settings(**given), num_threads) == (num_workers, num_rows)
