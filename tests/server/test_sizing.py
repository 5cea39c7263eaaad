import pytest
from attendant_server.settings import Settings
from attendant_server.sizing import choose_num_sentences, choose_num_workers, worker_processors


@pytest.mark.parametrize(
    ("given", "num_threads", "num_workers", "num_sentences"),
    [
        ({}, 1, 1, 16),
        ({}, 3, 3, 16),
        ({}, 6, 4, 24),
        ({}, 9, 4, 32),
        ({"num_workers": 1}, 3, 1, 48),
        ({"num_workers": 16}, 1, 16, 1),
        ({"max_sentences": 20}, 2, 2, 10),
        ({"max_sentences": 1}, 2, 2, 1),
        ({"max_rows": 12, "max_sentences": 20}, 2, 1, 12),
        ({"max_beam_size": 100}, 2, 1, 32),
        ({"device": "cuda"}, 2, 1, 128),
        ({"device": "cuda", "max_rows": 512}, 2, 1, 512),
        ({"device": "cuda", "max_sentences": 64}, 2, 1, 64),
    ],
)
def test_workers_and_sentences_follow_the_threads_unless_they_are_set(
    given, num_threads, num_workers, num_sentences
):
    settings = Settings(**given)
    assert choose_num_workers(settings, num_threads) == num_workers
    assert choose_num_sentences(settings, num_threads, num_workers, 256) == num_sentences


@pytest.mark.parametrize(
    ("given", "d_model", "num_sentences"),
    [
        ({}, 511, 16),
        ({}, 512, 32),
        ({"max_sentences": 20}, 1024, 10),
        ({"max_rows": 40}, 1024, 20),
        ({"device": "cuda"}, 1024, 64),
    ],
)
def test_a_worker_decodes_more_sentences_of_a_wide_model(given, d_model, num_sentences):
    assert choose_num_sentences(Settings(**given), 2, 2, d_model) == num_sentences


@pytest.mark.parametrize(
    ("given", "num_workers", "expected"),
    [
        ({}, 2, [3, 5]),
        ({}, 1, ()),
        ({}, 4, ()),
        ({"pin_workers": "never"}, 2, ()),
        ({"device": "cuda"}, 2, ()),
    ],
)
def test_workers_stay_on_processors_if_there_is_one_for_each(given, num_workers, expected):
    assert worker_processors(Settings(**given), num_workers, [3, 5]) == expected
