"""Addresses, unknown characters and parts without letters are copied, not translated."""

import string
import unicodedata

import pytest
from attendant_server.application.alignment import WordLink
from attendant_server.application.copying import Piece, piece
from attendant_server.application.words import word_spans
from attendant_server.text_normalization import TextNormalizer
from hypothesis import given
from hypothesis import strategies as st

KNOWN = frozenset(string.ascii_letters + string.digits + " .,;:!?'\"-/()@\ufe0f")


def whole(text: str) -> Piece | None:
    return piece(text, (0, len(text)), KNOWN.__contains__)


def with_copies(found: Piece, translation: str) -> str:
    return found.with_copies(translation, found.places_of_copies(translation))


@pytest.mark.parametrize(
    ("text", "to_translate", "upper"),
    [
        ("I love 😀 pizza.", "I love pizza.", "I LOVE 😀 PIZZA."),
        ("Hello 😀!", "Hello!", "HELLO 😀!"),
        ("See https://a.b/c?d=e. Now", "See. Now", "SEE https://a.b/c?d=e. NOW"),
        ("Mail a.b@c.de, please", "Mail, please", "MAIL a.b@c.de, PLEASE"),
        ("go 1️⃣ or 👨‍👩‍👧 go", "go or go", "GO 1️⃣ OR 👨‍👩‍👧 GO"),
        ("(www.x.org) is it", "() is it", "(www.x.org) IS IT"),
        ("Call +1 555 0100 now.", "Call now.", "CALL +1 555 0100 NOW."),
        ("call (555) 010-1234.", "call.", "CALL (555) 010-1234."),
        ("call 555-010-1234, please", "call, please", "CALL 555-010-1234, PLEASE"),
        ("order 12345678 is here", "order is here", "ORDER 12345678 IS HERE"),
        ("pay to DE89370400440532013000!", "pay to!", "PAY TO DE89370400440532013000!"),
        ("part AB-12345: new", "part: new", "PART AB-12345: NEW"),
    ],
)
def test_a_copied_part_is_put_at_about_the_same_place(text: str, to_translate: str, upper: str):
    found = whole(text)
    assert found is not None
    assert found.text == to_translate
    assert with_copies(found, found.text.upper()) == upper


@pytest.mark.parametrize(
    "text",
    [
        "in 2024 and 1999",
        "12,345,678 or 1.234.567,89 people",
        "COVID-19, ISO 9001 and H2SO4",
        "on 2026-11-30 at 10:30:00",
        "version 2.10.3 of room 4711",
        "a plus of 12 or 3-4-5-6",
    ],
)
def test_numbers_that_a_model_can_read_are_translated(text: str):
    found = whole(text)
    assert found is not None
    assert found.text == text


def links_of(source: str, target: str, pairs: str) -> list[WordLink]:
    """Links such as ``0-1`` between the words and signs of a text and of its translation."""
    sources, targets = word_spans(source), word_spans(target)
    numbers = (map(int, pair.split("-")) for pair in pairs.split())
    return [WordLink(sources[i], targets[j], 0.9) for i, j in numbers]


@pytest.mark.parametrize(
    ("text", "translation", "pairs", "expected"),
    [
        # after the translation of the word before
        ("I love you 😍 a lot", "ich habe dich sehr lieb", "0-0 1-4 2-2 3-3 4-3", "dich 😍 sehr"),
        # before that of the word after, if that of the word before has moved to the end
        ("I have read 📖 now", "ich habe jetzt gelesen.", "0-0 1-1 2-3 3-2", "habe 📖 jetzt"),
        # before a comma that the text lacks, after one that it has
        ("I go 🏠 if I can", "Ich gehe, wenn", "0-0 1-1 1-2 2-3", "gehe 🏠, wenn"),
        ("Hello, 😀 my friend", "Hallo, mein Freund", "0-0 1-1 2-2 3-3", "Hallo, 😀 mein"),
        # within its bracket
        ("See (😀) there now", "Da sieh () jetzt", "0-1 1-2 2-3 3-0 4-4", "sieh (😀) jetzt"),
        # without a link, at about the same place
        ("a b 😀 c d", "A B C D", "", "A B 😀 C D"),
        # in order
        ("a 😀 b 😍 c", "C B A X", "0-2 1-1 2-0", "C B A 😀 😍 X"),
    ],
)
def test_a_copied_part_is_put_beside_the_translation_of_its_neighbour(
    text: str, translation: str, pairs: str, expected: str
):
    found = whole(text)
    assert found is not None
    places = found.places_of_copies(translation, links_of(found.text, translation, pairs))
    assert expected in found.with_copies(translation, places)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_copies_stay_in_order_and_whole_whatever_the_links_are(pairs: list[tuple[int, int]]):
    found = whole("one 😀 two, three 😍 (www.x.org) four five")
    assert found is not None
    translation = "EINS ZWEI, DREI () VIER!"
    links = links_of(found.text, translation, " ".join(f"{i}-{j}" for i, j in pairs))
    written = found.with_copies(translation, found.places_of_copies(translation, links))
    assert [written.index(copy.text) for copy in found.copies] == sorted(
        written.index(copy.text) for copy in found.copies
    )
    for copy in found.copies:
        written = written.replace(copy.text, "", 1)
    assert written == translation


@pytest.mark.parametrize("text", ["25", "-----", "😀", "https://a.b", "3:45 - 10%", "日本", "…"])
def test_a_part_without_anything_to_translate_is_no_piece(text: str):
    assert whole(text) is None


def test_marks_that_compose_known_characters_with_their_bases_are_not_copied():
    normalizer = TextNormalizer((KNOWN | set("éÜ")).__contains__)
    for text in ("Une idée", "Übung 😀 é"):
        decomposed = unicodedata.normalize("NFD", text)
        found = piece(decomposed, (0, len(decomposed)), normalizer.can_read)
        composed = piece(text, (0, len(text)), normalizer.can_read)
        assert found is not None
        assert composed is not None
        assert unicodedata.normalize("NFC", found.text) == composed.text
        assert [copy.text for copy in found.copies] == [copy.text for copy in composed.copies]
    lone = piece("a \u0308b", (0, 4), normalizer.can_read)
    assert lone is not None
    assert "\u0308" in [copy.text.strip() for copy in lone.copies]


def test_copied_parts_at_the_ends_lie_outside_of_the_piece():
    text = "😀😀 Hi there 👨‍👩‍👧"
    found = whole(text)
    assert found is not None
    assert (text[found.start : found.end], found.text, found.copies) == ("Hi there", "Hi there", [])


@given(
    st.text(
        st.sampled_from("ab .,!?😀👍🏽\u200d\ufe0f\u20e31é@(www.x.org http://y.de"), max_size=30
    )
)
def test_every_copied_character_is_in_the_translation(text: str):
    found = whole(text)
    if found is None:
        return
    translation = with_copies(found, "ONE TWO. THREE")
    for copy in found.copies:
        assert copy.text in translation
    assert len(translation) == len("ONE TWO. THREE") + sum(len(c.text) for c in found.copies)
    assert with_copies(found, found.text).count("😀") == text[found.start : found.end].count("😀")
