"""Words of texts in any script."""

import unicodedata

import pytest
from attendant_server.application.words import word_spans
from hypothesis import given
from hypothesis import strategies as st


def words(text):
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, it’s 9.", ["Don't", "stop", ",", "it’s", "9", "."]),
        ("cafe\u0301 olé", ["cafe\u0301", "olé"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("שָׁלוֹם عَلَيْكُم", ["שָׁלוֹם", "عَلَيْكُم"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("我看见狗。", ["我", "看", "见", "狗", "。"]),
        ("ไม่ดี", ["ไ", "ม่", "ดี"]),
        ("a❤\ufe0f\u0301b", ["a", "❤\ufe0f\u0301", "b"]),
        (" \n\t", []),
    ],
)
def test_words_keep_their_combining_marks(text, expected):
    assert words(text) == expected


@given(st.text())
def test_words_are_all_of_a_text_but_its_white_space(text):
    spans = word_spans(text)
    assert all(start < end for start, end in spans)
    assert all(one[1] <= two[0] for one, two in zip(spans, spans[1:], strict=False))
    assert "".join(words(text)) == "".join(text.split())


@given(st.text())
def test_no_word_begins_with_a_mark_after_a_letter(text):
    for start, _ in word_spans(text):
        if start and unicodedata.category(text[start]).startswith("M"):
            assert text[start - 1].isspace()
