"""Normalization keeps meaning and offsets, and replaces only characters that a tokenizer lacks."""

import string
import unicodedata

import pytest
from attendant_server.text_normalization import TextNormalizer
from hypothesis import given
from hypothesis import strategies as st

KNOWN = frozenset(string.ascii_letters + string.digits + ".,;:!?'\"-/()äöüßéà")
REMOVED = "\u00ad\u034f\u180e\u200b\u2060\ufeff"
NORMALIZER = TextNormalizer(KNOWN.__contains__)
KNOWS_ALL = TextNormalizer(lambda _: True)


def normalized(text: str, normalizer: TextNormalizer = NORMALIZER) -> str:
    found = normalizer.normalize(text)
    return text if found is None else found.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mut\u00adter", "Mutter"),
        ("Kran\u200bken\u2060haus\ufeff", "Krankenhaus"),
        (unicodedata.normalize("NFD", "Café für"), "Café für"),
        ("“Ja” … ‘no’ – «si»", '"Ja" ... \'no\' - "si"'),
        ("Ｈｅｌｌｏ２", "Hello2"),
        ("ﬁne ½ m²", "fine 1/2 m2"),
        ("Señor Dvořák", "Senor Dvorak"),
        ("\u200fleft\u202eright\u0007", "leftright"),
        ("❤\ufe0f", "❤"),
        ("日本", "日本"),
        ("\ttab\nline", "\ttab\nline"),
    ],
)
def test_a_text_is_normalized_to_characters_that_the_tokenizer_has(text: str, expected: str):
    assert normalized(text) == expected


def test_joiners_stay_in_a_vocabulary_that_has_them():
    persian = "می\u200cخواهم"
    assert normalized(persian, KNOWS_ALL) == persian


def test_a_text_that_needs_no_normalization_is_recognized():
    for text in ("Hello, world.", "Die Tür ist grün.", ""):
        assert NORMALIZER.normalize(text) is None


CHARACTERS = st.one_of(
    st.characters(exclude_categories=("Cs", "Cn")),
    st.sampled_from("\u0301\u0323\u1100\u1161\u11a8\uac00가e\u00ad\u200b\u200d"),
)
TEXTS = st.text(CHARACTERS, max_size=12)


@given(TEXTS)
def test_canonically_equal_texts_become_equal(text: str):
    forms = {normalized(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@given(TEXTS)
def test_with_all_characters_known_only_canonical_composition_and_removals_happen(text: str):
    plain = unicodedata.normalize("NFC", text)
    expected = "".join(each for each in plain if each not in REMOVED)
    assert normalized(text, KNOWS_ALL) == expected


@given(TEXTS)
def test_each_character_has_the_place_of_its_original(text: str):
    found = NORMALIZER.normalize(text)
    if found is None:
        return
    assert list(found.starts) == sorted(found.starts)
    assert list(found.ends) == sorted(found.ends)
    for i, character in enumerate(found.text):
        start, end = found.original(i, i + 1)
        assert 0 <= start < end <= len(text)
        assert character in normalized(text[start:end])
    assert found.original(0, len(found.text))[1] <= len(text)


@given(TEXTS)
def test_normalization_changes_a_normalized_text_no_more(text: str):
    once = normalized(text)
    assert normalized(once) == once
