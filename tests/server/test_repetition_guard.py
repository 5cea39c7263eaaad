"""The repetition guard ends loops, and nothing else."""

import pytest
from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.calls import Hypothesis, SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.repetition_guard import (
    RepetitionGuard,
    loop_start,
    num_settled,
    repeats_itself,
)
from attendant_server.engine.search import Search
from hypothesis import given
from hypothesis import strategies as st

BOS, EOS = 1, 2
PHRASES = st.lists(st.integers(3, 6), min_size=1, max_size=6)
TOKENS = st.lists(st.integers(3, 5), max_size=30)


def watch(guard: RepetitionGuard, search: Search) -> None:
    """As after each step of a running batch."""
    if search.is_finished or search.num_tokens >= guard.next_check:
        guard.check(search)


def greedy(
    tokens: list[int], step: int, source: list[int], min_tokens: int = 0, is_streamed: bool = True
) -> tuple[Hypothesis, list[tuple[int, ...]]]:
    """The result of a search that chooses these tokens and EOS, and its settled prefixes."""
    search = GreedySearch(SearchOptions(max_output_tokens=200), BOS, EOS)
    guard, prefixes = RepetitionGuard(source, min_tokens, is_streamed), []
    chosen = [*tokens, EOS, *[EOS] * step]
    while not search.is_finished:
        next_tokens = chosen[search.num_tokens : search.num_tokens + step]
        search.advance([next_tokens], [[-0.5] * step])
        watch(guard, search)
        prefix = search.settled_prefix()
        prefixes.append(prefix if search.is_finished else prefix[: num_settled(prefix)])
    [hypothesis] = search.hypotheses()
    return hypothesis, prefixes


@pytest.mark.parametrize("phrase", [[7], [7, 8], [7, 8, 9], list(range(7, 30))])
def test_a_loop_ends_after_the_first_occurrence_of_its_phrase(phrase: list[int]):
    found, _ = greedy([3, 4, 5, *phrase * 20], 1, source=[3, 4])
    assert list(found.token_ids) == [3, 4, 5, *phrase]
    assert found.is_loop
    assert not found.is_complete
    assert found.score == -0.5


@pytest.mark.parametrize(
    "tokens",
    [
        [7, 7, 7, 7],
        [7, 8, 7, 8, 7],
        [3, *[7, 8, 9, 10, 11, 12] * 2, 4],
        [7, 8, 9, 7, 8, 10, 7, 8, 11] * 1,
    ],
)
def test_a_phrase_that_comes_a_few_times_is_no_loop(tokens: list[int]):
    found, _ = greedy(tokens, 1, source=[3, 4])
    assert list(found.token_ids) == [*tokens, EOS]
    assert not found.is_loop


def test_a_text_that_repeats_itself_may_have_a_translation_that_does():
    assert repeats_itself([3, 7, 8, 7, 8, 7, 8, 4])
    assert not repeats_itself([3, 7, 8, 7, 8, 4])
    found, _ = greedy([7, 8] * 20, 1, source=[3, 4, 5, 4, 5, 4, 5])
    assert found.is_complete


def test_the_least_number_of_tokens_is_kept():
    found, _ = greedy([7, 8] * 10, 1, source=[3], min_tokens=10)
    assert found.is_complete


@given(TOKENS, PHRASES, st.integers(0, 9), TOKENS)
def test_steps_of_any_size_give_the_same_result_and_prefixes_are_never_taken_back(
    start: list[int], phrase: list[int], count: int, end: list[int]
):
    tokens = [*start, *phrase * count, *end]
    results = [greedy(tokens, step, source=[9]) for step in (1, 2, 4)]
    rarely = [greedy(tokens, step, source=[9], is_streamed=False) for step in (1, 2, 4)]
    assert len({(found.token_ids, found.is_loop) for found, _ in results + rarely}) == 1
    for found, prefixes in results:
        whole = found.token_ids[: len(found.token_ids) - found.is_complete]
        for prefix in prefixes:
            assert whole[: len(prefix)] == prefix
        assert loop_start(whole) is None or not found.is_loop


def test_a_beam_in_a_loop_is_dropped_while_another_can_win():
    search = BeamSearch(SearchOptions(40, beam_size=2), BOS, EOS)
    guard = RepetitionGuard([3], 0)
    search.advance([[7, 9, 3, 4]] * 2, [[-0.1, -0.2, -9.0, -9.0]] * 2)
    while not search.is_finished:
        likeliest = EOS if search.num_tokens > 12 else 10 + search.num_tokens
        tokens = [[7 if row[-1] == 7 else likeliest, 5, 6, 4] for row in search.prefixes()]
        search.advance(tokens, [[-0.1, -9.0, -9.5, -9.9]] * 2)
        watch(guard, search)
    best = search.hypotheses()[0]
    assert best.token_ids[0] == 9
    assert best.is_complete


def test_beams_that_are_all_in_loops_are_cut():
    search = BeamSearch(SearchOptions(40, beam_size=2, num_hypotheses=2), BOS, EOS)
    guard = RepetitionGuard([3], 0)
    search.advance([[7, 9, 3, 4]] * 2, [[-0.1, -0.2, -9.0, -9.0]] * 2)
    while not search.is_finished:
        tokens = [[row[-1], 5, EOS, 6] for row in search.prefixes()]
        search.advance(tokens, [[-0.1, -29.0, -29.5, -29.9]] * 2)
        watch(guard, search)
    found = search.hypotheses()
    assert [each.token_ids for each in found] == [(7,), (9,)]
    assert all(each.is_loop and not each.is_complete for each in found)
