"""Texts are split into lines and sentences, and nothing but white space lies between them."""

import pytest
from attendant_server.application.descriptions import Splitting
from attendant_server.application.splitting import clause_end, spans
from hypothesis import given
from hypothesis import strategies as st


def parts(text: str, language: str = "en", splitting: Splitting = Splitting.SENTENCES) -> list[str]:
    return [text[start:end] for start, end in spans(text, splitting, language)]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Hello. How are you?", ["Hello.", "How are you?"]),
        ("en", "Dr. Smith saw Mr. Jones. He left!", ["Dr. Smith saw Mr. Jones.", "He left!"]),
        ("en", "It costs $3.50 at example.com. OK", ["It costs $3.50 at example.com.", "OK"]),
        ("en", "One\r\ntwo\n\n\n three ", ["One", "two", "three"]),
        ("de", "Das ist z. B. am 3. Mai. Ja!", ["Das ist z. B. am 3. Mai.", "Ja!"]),
        ("en", "Tell me. Tom is ill. OK. Go!", ["Tell me.", "Tom is ill.", "OK.", "Go!"]),
        ("en", 'Say "no." Tom, too.', ['Say "no."', "Tom, too."]),
        ("en", "See no. 5 in Portland, Me. today.", ["See no. 5 in Portland, Me. today."]),
        ("de", "Er sieht mich. Tom auch.", ["Er sieht mich.", "Tom auch."]),
        ("de", "Das ist Mag. Huber. Ja!", ["Das ist Mag. Huber.", "Ja!"]),
        ("fr", "M. Dupont est là. Oui ?", ["M. Dupont est là.", "Oui ?"]),
        ("pt-BR", "Olá. Tudo bem?", ["Olá.", "Tudo bem?"]),
        ("zh", "你好。今天好吗？", ["你好。", "今天好吗？"]),
        ("", "One. Two.", ["One.", "Two."]),
        ("en", " \n\t ", []),
    ],
)
def test_a_text_is_split_into_its_sentences(language: str, text: str, expected: list[str]):
    assert parts(text, language) == expected


def test_a_text_can_be_split_into_lines_only_or_not_at_all():
    text = " One. Two.\n\nThree. "
    assert parts(text, splitting=Splitting.LINES) == ["One. Two.", "Three."]
    assert parts(text, splitting=Splitting.NONE) == [text]
    assert parts(" ", splitting=Splitting.NONE) == []


@given(
    st.text(st.sampled_from("aB. !?\"'“”()…。！\n\t\r1\u2028😀é,"), max_size=60),
    st.sampled_from(["en", "de", "zh", "hi", "xx", "", "kk", "de-AT"]),
    st.sampled_from(Splitting),
)
def test_parts_are_in_order_and_hold_all_but_white_space(
    text: str, language: str, splitting: Splitting
):
    found = spans(text, splitting, language)
    ends = [0, *(end for _, end in found)]
    for (start, end), last_end in zip(found, ends, strict=False):
        assert last_end <= start < end
        assert not text[last_end:start].strip()
    assert not text[ends[-1] :].strip()


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("one two, three four", 14, "one two, "),
        ("one two three four", 11, "one two "),
        ("a, two three four", 15, "a, two three "),
        ("unbroken", 4, "unbr"),
        ("今天、好今天好", 5, "今天、"),
    ],
)
def test_a_long_part_ends_at_a_clause_or_a_word(text: str, limit: int, expected: str):
    assert text[: clause_end(text, 0, limit)] == expected
