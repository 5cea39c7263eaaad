"""The repetition guard backs out of loops or ends them, and does nothing else."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.calls import Hypothesis, SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.repetition_guard import (
    MAX_REWINDS,
    RepetitionGuard,
    Rewind,
    least_occurrences,
    loop_start,
    num_settled,
)
from attendant_server.engine.search import Search
from hypothesis import given
from hypothesis import strategies as st

BOS, EOS = 1, 2


def watch(guard: RepetitionGuard, search: Search, can_rewind: bool = False) -> Rewind | None:
    """As after each step of a running batch."""
    if search.is_finished or search.num_tokens >= guard.next_check:
        return guard.check(search, can_rewind)
    return None


def decode(
    likeliest: Callable[[Sequence[int]], Sequence[int]],
    guard: RepetitionGuard,
    step: int = 1,
    can_rewind: bool = True,
) -> tuple[Hypothesis, list[tuple[int, ...]]]:
    """The result of a greedy search with steps of several tokens, and its settled prefixes.

    ``likeliest`` are the likeliest tokens after a prefix, best first.
    """
    search = GreedySearch(SearchOptions(max_output_tokens=200), BOS, EOS)
    forbidden: set[tuple[int, int]] = set()
    prefixes = []
    while not search.is_finished:
        tokens = list(search.prefixes()[0])
        for _ in range(step):
            allowed = (t for t in likeliest(tokens) if (len(tokens), t) not in forbidden)
            tokens.append(next(allowed))
        search.advance([tokens[search.num_tokens :]], [[-0.5] * step])
        if (rewind := watch(guard, search, can_rewind)) is not None:
            assert search.num_tokens == rewind.num_tokens
            forbidden.add(rewind)
        prefix = search.settled_prefix()
        prefixes.append(prefix if search.is_finished else prefix[: num_settled(prefix)])
    [hypothesis] = search.hypotheses()
    return hypothesis, prefixes


def greedy(tokens: list[int], source: list[int], min_tokens: int = 0) -> Hypothesis:
    """The result of a search that chooses these tokens and EOS, and cannot be rewound."""
    chosen = [*tokens, EOS]
    guard = RepetitionGuard(source, min_tokens)
    return decode(lambda prefix: [chosen[len(prefix)]], guard, can_rewind=False)[0]


def stubborn(loops: dict[int, list[int]]) -> Callable[[Sequence[int]], Sequence[int]]:
    """A model that repeats a phrase after some numbers of tokens until it must not.

    Otherwise, it writes tokens from 10 on in their order, and ends after 40 tokens.
    """

    def likeliest(prefix: Sequence[int]) -> Sequence[int]:
        usual = EOS if len(prefix) >= 40 else 10 + len(prefix)
        for start, phrase in reversed(loops.items()):
            if len(prefix) >= start:
                own, place = prefix[start:], len(prefix) - start
                if list(own) == [phrase[i % len(phrase)] for i in range(place)]:
                    return [phrase[place % len(phrase)], usual]
        return [usual]

    return likeliest


@pytest.mark.parametrize("phrase", [[7], [7, 8], [7, 8, 9], list(range(7, 30))])
def test_a_loop_that_cannot_be_taken_back_ends_after_the_first_occurrence_of_its_phrase(
    phrase: list[int],
):
    found = greedy([3, 4, 5, *phrase * 20], source=[3, 4])
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
def test_a_phrase_that_comes_a_few_times_ends_nothing(tokens: list[int]):
    found = greedy(tokens, source=[3, 4])
    assert list(found.token_ids) == [*tokens, EOS]
    assert not found.is_loop


def test_a_text_that_repeats_itself_may_have_a_translation_that_does_twice_as_often():
    assert least_occurrences([3, 7, 8, 7, 8, 7, 8, 4]) == 7
    assert least_occurrences([3, 5, 5, 5, 5, 5]) == 11
    assert least_occurrences([3, 7, 8, 7, 8, 4]) == least_occurrences([]) == 3
    source = [3, 4, 5, 4, 5, 4, 5]
    assert greedy([9, *[7, 8] * 6, 9], source).is_complete
    assert greedy([9, *[7, 8] * 7, 9], source).is_loop
    found, _ = decode(
        lambda prefix: [[9, *[7, 8] * 6, 9, EOS][len(prefix)]], RepetitionGuard(source, 0)
    )
    assert found.num_rewinds == 0
    found, _ = decode(stubborn({3: [7, 8]}), RepetitionGuard(source, 0))
    assert found.num_rewinds == 1
    assert found.token_ids[:6] == (10, 11, 12, 7, 8, 15)


def test_the_least_number_of_tokens_is_kept():
    assert greedy([7, 8] * 10, source=[3], min_tokens=10).is_complete


@pytest.mark.parametrize("phrase", [[7], [7, 8], [7, 8, 9]])
def test_a_greedy_search_goes_on_after_the_first_occurrence_with_another_token(phrase: list[int]):
    found, _ = decode(stubborn({3: phrase}), RepetitionGuard([3], 0))
    start = 3 + len(phrase)
    assert list(found.token_ids) == [10, 11, 12, *phrase, *range(10 + start, 50), EOS]
    assert found.num_rewinds == 1
    assert found.is_complete
    assert not found.is_loop
    assert len(found.log_probabilities) == len(found.token_ids)


def test_a_phrase_that_comes_twice_is_left_alone():
    tokens = [7, 8, 9, 7, 8, 9, 4, 4, 5]
    found, _ = decode(lambda prefix: [[*tokens, EOS][len(prefix)]], RepetitionGuard([3], 0))
    assert list(found.token_ids) == [*tokens, EOS]
    assert found.num_rewinds == 0


def test_a_search_backs_out_of_many_loops_but_not_of_all():
    loops = {3 * i: [7 + i % 2] for i in range(MAX_REWINDS)}
    found, _ = decode(stubborn(loops), RepetitionGuard([3], 0))
    assert found.num_rewinds == MAX_REWINDS
    assert found.is_complete

    found, _ = decode(stubborn(loops | {30: [7]}), RepetitionGuard([3], 0))
    assert found.num_rewinds == MAX_REWINDS
    assert found.is_loop
    assert found.token_ids[-2:] == (39, 7)


def test_forced_tokens_are_never_taken_back_and_may_be_repeated_twice_as_often():
    found, _ = decode(stubborn({0: [7]}), RepetitionGuard([3], 3, forced=[7, 7, 7]))
    assert found.token_ids[:4] == (7, 7, 7, 13)
    assert found.num_rewinds == 1
    tokens = [7] * 6 + [8, EOS]
    found, _ = decode(lambda prefix: [tokens[len(prefix)]], RepetitionGuard([3], 3, [7, 7, 7]))
    assert list(found.token_ids) == tokens


@given(st.randoms(use_true_random=False), st.lists(st.integers(3, 14), max_size=4))
def test_steps_of_any_size_give_the_same_result_and_prefixes_are_never_taken_back(
    rng: Random, forced: list[int]
):
    seed = rng.random()

    def likeliest(prefix: Sequence[int]) -> Sequence[int]:
        """Any order of the tokens, depending on the last two: many loops."""
        if len(prefix) < len(forced):
            return [forced[len(prefix)]]
        if len(prefix) >= 30:
            return [EOS]
        return Random(f"{seed} {prefix[-2:]}").sample(range(3, 15), 12)

    def all_of(can_rewind: bool, is_streamed: bool) -> list[tuple[Hypothesis, list[Any]]]:
        return [
            decode(likeliest, RepetitionGuard([9], 0, forced, is_streamed), step, can_rewind)
            for step in (1, 2, 4)
        ]

    for can_rewind in (False, True):
        streamed, whole = all_of(can_rewind, True), all_of(can_rewind, False)
        [found] = {hypothesis for hypothesis, _ in streamed + whole}
        tokens = found.token_ids[: len(found.token_ids) - found.is_complete]
        for _, prefixes in streamed:
            for prefix in prefixes:
                assert tokens[: len(prefix)] == prefix
        if can_rewind and found.num_rewinds < MAX_REWINDS:
            assert not found.is_loop
            least = least_occurrences(forced)
            for length in range(len(forced) + 1, len(tokens) + 1):
                assert loop_start(tokens[:length], least) is None


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
