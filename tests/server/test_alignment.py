"""Words are found in texts, and linked by the attention weights of their tokens."""

import numpy as np
import pytest
from attendant_server.application.alignment import links, token_spans
from attendant_server.application.copying import Copy, Piece
from attendant_server.application.words import word_spans
from attendant_server.tokenizer import TextTokenizer
from hypothesis import given
from hypothesis import strategies as st

from tests.server.test_pieced_text import TEXTS, TOKENIZER


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog's house, again.", ["The", "dog's", "house", ",", "again", "."]),
        ("l\u2019ami 3.5", ["l\u2019ami", "3", ".", "5"]),
        ("我看见 dogs", ["我", "看", "见", "dogs"]),
        ("well-known", ["well", "-", "known"]),
        ("  \n ", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_or_single_signs(text: str, expected: list[str]):
    assert words(text) == expected


@given(st.text())
def test_words_hold_every_character_but_white_space(text: str):
    found = "".join(words(text))
    assert found == "".join(text.split()) or not text.isprintable()


@given(TEXTS.map("".join))
def test_tokens_cover_the_decoded_text_in_order(text: str):
    tokenizer: TextTokenizer = TOKENIZER
    token_ids = tokenizer.encode(text).token_ids
    decoded = tokenizer.decode(token_ids)
    spans = token_spans(tokenizer.decode, token_ids, decoded)
    assert len(spans) == len(token_ids)
    assert "".join(decoded[start:end] for start, end in spans) == "".join(decoded.split())


def test_a_word_is_linked_to_the_word_that_its_tokens_attend_to():
    source, target = "the black dog", "der Hund"
    weights = np.array([[0.8, 0.1, 0.0, 0.1], [0.0, 0.1, 0.8, 0.1], [0.0, 0.1, 0.6, 0.3]])
    source_tokens = [(0, 3), (4, 9), (10, 13), (0, 0)]
    found = links(
        weights.astype(np.float32),
        source_tokens,
        word_spans(source),
        [(0, 3), (4, 6), (6, 8)],
        word_spans(target),
    )
    named = [
        (source[slice(*link.source)], target[slice(*link.target)], round(link.weight, 2))
        for link in found
    ]
    assert named == [("the", "der", 0.8), ("dog", "Hund", 0.7)]


def test_a_word_with_two_origins_is_linked_to_both_and_one_without_to_none():
    weights = np.array([[0.45, 0.5, 0.05], [0.05, 0.05, 0.9]], np.float32)
    source_tokens = [(0, 2), (3, 6), (0, 0)]
    found = [*links(weights, source_tokens, [(0, 2), (3, 6)], [(0, 3), (4, 7)], [(0, 3), (4, 7)])]
    assert [(link.source, link.target) for link in found] == [((0, 2), (0, 3)), ((3, 6), (0, 3))]


def test_texts_without_words_have_no_links():
    weights = np.ones((1, 1), np.float32)
    assert not [*links(weights, [(0, 0)], [], [(0, 1)], [(0, 1)])]
    assert not [*links(weights, [(0, 1)], [(0, 1)], [(0, 0)], [])]


PIECES = st.builds(
    lambda parts, start: (parts, start),
    st.lists(st.tuples(st.text("ab", min_size=1, max_size=4), st.text("XY", max_size=3))),
    st.integers(0, 3),
)


@given(PIECES)
def test_places_in_a_piece_become_places_in_the_text_with_its_copies(drawn):
    parts, start = drawn
    copies, kept, whole = [], "", "-" * start
    for text, copied in parts:
        kept += text
        whole += text
        if copied:
            copies.append(Copy(len(kept), copied))
            whole += copied
    piece = Piece(start, len(whole), kept, copies)
    for i, character in enumerate(kept):
        begin, end = piece.source_span((i, i + 1))
        assert whole[begin:end] == character
        places = [copy.offset for copy in copies]
        begin, end = piece.target_span((i, i + 1), places)
        assert whole[start:][begin:end] == character
