"""Places in a text and in its final translation, from those of two translations."""

import re

import pytest
from attendant_server.application.alignment import WordLink
from attendant_server.application.hypotheses import SentencePair
from attendant_server.application.pivot_places import LEAST_WEIGHT, links_over, sentences_over
from hypothesis import given
from hypothesis import strategies as st

WORDS = {"a": (0, 1), "b": (2, 3), "c": (4, 5)}


def links(*pairs: tuple[str, str, float]) -> list[WordLink]:
    return [WordLink(WORDS[source], WORDS[target], weight) for source, target, weight in pairs]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([("a", "b", 0.8)], [("b", "c", 0.5)], [("a", "c", 0.4)]),
        ([("a", "a", 0.8)], [("b", "c", 0.5)], []),
        ([("a", "b", 0.2)], [("b", "c", LEAST_WEIGHT)], []),
        (
            [("a", "a", 0.5), ("a", "b", 0.5), ("b", "b", 0.4)],
            [("a", "a", 0.6), ("b", "a", 0.4)],
            [("a", "a", 0.5), ("b", "a", 0.16)],
        ),
        (
            [("a", "a", 1.0), ("a", "b", 1.0)],
            [("a", "a", 0.75), ("b", "a", 0.75), ("b", "b", 0.5)],
            [("a", "a", 1.0), ("a", "b", 0.5)],
        ),
    ],
)
def test_words_are_linked_over_the_words_of_the_middle(first, second, expected):
    found = links_over(links(*first), links(*second))
    assert [each[:2] for each in found] == [each[:2] for each in links(*expected)]
    assert [each.weight for each in found] == pytest.approx([weight for *_, weight in expected])


def test_a_word_that_only_one_model_cuts_in_two_is_linked_as_a_whole():
    first = [WordLink((0, 5), (10, 20), 0.5)]
    second = [WordLink((10, 14), (3, 6), 0.5), WordLink((15, 20), (7, 9), 1.0)]
    assert links_over(first, second) == [
        WordLink((0, 5), (3, 6), 0.25),
        WordLink((0, 5), (7, 9), 0.5),
    ]


def pairs(*spans: tuple[int, int, int, int]) -> list[SentencePair]:
    return [SentencePair((a, b), (c, d)) for a, b, c, d in spans]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [], []),
        ([(0, 4, 0, 6)], [(0, 6, 0, 9)], [(0, 4, 0, 9)]),
        # The second model reads two sentences where the first one wrote one, and the other way.
        ([(0, 4, 0, 6), (5, 8, 7, 9)], [(0, 3, 0, 2), (4, 9, 3, 8)], [(0, 8, 0, 8)]),
        ([(1, 4, 1, 9)], [(1, 3, 1, 2), (4, 9, 3, 8)], [(1, 4, 1, 8)]),
        ([(0, 4, 0, 6), (5, 8, 7, 9)], [(0, 9, 0, 3)], [(0, 8, 0, 3)]),
        # A sentence that the second model has copied, or the first one.
        ([(0, 4, 0, 6), (5, 8, 7, 9)], [(0, 6, 0, 3)], [(0, 4, 0, 3), (5, 8, 4, 6)]),
        ([(5, 8, 5, 7)], [(0, 4, 0, 9), (5, 7, 10, 12)], [(0, 4, 0, 9), (5, 8, 10, 12)]),
    ],
)
def test_sentences_that_overlap_in_the_middle_are_one(first, second, expected):
    assert sentences_over(pairs(*first), pairs(*second)) == pairs(*expected)


SENTENCES = st.lists(st.sampled_from(["a", "bb", "cccc"]), max_size=6)
GAPS = st.lists(st.sampled_from([" ", "\n\n", " 3 "]), min_size=7, max_size=7)


def spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"[a-z]+", text)]


@given(SENTENCES, GAPS)
def test_the_same_sentences_in_all_texts_keep_their_order_and_places(sentences, gaps):
    source, middle, final = (
        gaps[0] + "".join(each * n + gap for each, gap in zip(sentences, gaps[1:], strict=False))
        for n in (1, 2, 3)
    )
    sides = [spans(text) for text in (source, middle, final)]
    first, second = (
        [SentencePair(*both) for both in zip(*sides[i : i + 2], strict=True)] for i in (0, 1)
    )
    expected = [SentencePair(*both) for both in zip(sides[0], sides[2], strict=True)]
    assert sentences_over(first, second) == expected
