"""Markup is read to the letter, and put around the words of a translation."""

import re

import pytest
from attendant_server.application.alignment import WordLink
from attendant_server.application.markup import Segment, segments
from attendant_server.application.markup_placement import with_elements
from attendant_server.application.markup_tokens import Kind, tokens
from attendant_server.application.words import word_spans
from hypothesis import given
from hypothesis import strategies as st

SOURCES = st.lists(
    st.sampled_from(
        ("<", ">", "/", "b", "p", "<b>", "</b>", "<p>", "</p>", "<br>", "<i x='>'>", "</i>", "<a ")
        + ("<!--", "-->", "<?", "<!", "<![CDATA[", "]]>", "'", '"', "=", "&amp;", "&", " ", "\n")
        + ("<script>", "</script>", "<code>", "</code>", ' translate="no">', "x y", "é😀", "<u/>")
    ),
    max_size=40,
).map("".join)


@given(SOURCES | st.text(), st.booleans())
def test_tokens_and_segments_are_the_source_to_the_letter(source: str, is_html: bool):
    assert "".join(token.source for token in tokens(source, is_html)) == source
    parts = segments(source, is_html)
    assert "".join(p.source if isinstance(p, Segment) else p for p in parts) == source


def kinds(source: str, is_html: bool = True) -> list[tuple[str, str]]:
    return [(token.kind.name, token.source) for token in tokens(source, is_html)]


def test_tags_with_quoted_angles_comments_and_scripts_are_recognized():
    assert kinds('<a b="x > y">t</a><!-- <b> --><script>a<b></script>') == [
        ("OPEN", '<a b="x > y">'),
        ("TEXT", "t"),
        ("CLOSE", "</a>"),
        ("OTHER", "<!-- <b> -->"),
        ("OPEN", "<script>"),
        ("OTHER", "a<b>"),
        ("CLOSE", "</script>"),
    ]


@pytest.mark.parametrize("source", ["a < b", "1<2 and 3>2", '<a "', "<>", "</>", "<1>", "<a"])
def test_what_is_no_tag_is_text(source: str):
    assert kinds(source) == [("TEXT", source)]


def test_a_tag_may_have_any_number_of_attributes():
    source = "<a " + "b='>' " * 5000 + ">"
    assert kinds(source) == [("OPEN", source)]


def test_elements_may_be_nested_deeper_than_calls_of_functions():
    depth = 50_000
    source = "<b>" * depth + "word" + "</b>" * depth
    [segment] = segments(source, True)
    assert isinstance(segment, Segment)
    found = with_elements(segment, "Wort", [WordLink((0, 4), (0, 4), 1.0)])
    assert found == source.replace("word", "Wort")


def texts(source: str, is_html: bool = True) -> list[str]:
    return [part.text for part in segments(source, is_html) if isinstance(part, Segment)]


def test_tags_of_blocks_separate_texts_and_inline_elements_do_not():
    assert texts("<div>One <b>two</b><p>Three</p>four<br>five</div>") == [
        "One two",
        "Three",
        "four",
        "five",
    ]


def test_an_element_of_xml_is_inline_if_text_stands_beside_it():
    source = "<doc><p>One <x>two</x> three.</p><p><y>Four</y></p></doc>"
    assert texts(source, is_html=False) == ["One two three.", "Four"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a <code>b</code> c", ["a c"]),
        ('a <span translate="no">b <span>c</span></span> d', ["a d"]),
        ("a <i class='x notranslate'>b</i> c", ["a c"]),
        ("<pre>a</pre><style>b</style>", []),
        ("H<sub>2</sub>O", ["HO"]),
        ("&lt;b&gt; &amp;amp; &eacute;", ["<b> &amp; é"]),
        (" \n<p> </p>", []),
    ],
)
def test_kept_content_is_no_text_and_character_references_are_characters(
    source: str, expected: list[str]
):
    assert texts(source) == expected


def placed(source: str, translation: str, *pairs: tuple[str, str]) -> str:
    """The markup of ``source`` in the translation; ``pairs`` are words that belong together."""
    [segment] = [part for part in segments(source, True) if isinstance(part, Segment)]
    links = [WordLink(_span(segment.text, a), _span(translation, b), 0.9) for a, b in pairs]
    return with_elements(segment, translation, sorted(links, key=lambda link: link.target))


def _span(text: str, word: str) -> tuple[int, int]:
    (span,) = [(a, b) for a, b in word_spans(text) if text[a:b] == word]
    return span


EAT = (("I", "ich"), ("eat", "esse"), ("red", "rote"), ("apples", "Äpfel"), ("today", "Heute"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("I eat <b>red apples</b> today", "Heute esse ich <b>rote Äpfel</b>"),
        ("<i>I</i> eat red apples <u>today</u>", "<u>Heute</u> esse <i>ich</i> rote Äpfel"),
        ("I eat <b>red <i>apples</i></b> today", "Heute esse ich <b>rote <i>Äpfel</i></b>"),
        ("<b>I eat red apples today</b>", "<b>Heute esse ich rote Äpfel</b>"),
        ("I eat <img> red apples today", "Heute esse <img> ich rote Äpfel"),
        ("I eat red apples<sup>1</sup> today", "Heute esse ich rote Äpfel<sup>1</sup>"),
        ("I eat <a></a>red apples today", "Heute esse ich <a></a>rote Äpfel"),
    ],
)
def test_elements_follow_their_words(source: str, expected: str):
    assert placed(source, "Heute esse ich rote Äpfel", *EAT) == expected


def test_a_translation_is_escaped_and_a_text_that_is_copied_keeps_its_source():
    assert placed("a <b>b</b>", "x < y & <b>", ("b", "y")) == "x &lt; <b>y &amp; &lt;b&gt;</b>"
    assert placed("x &lt; <b>y</b>", "x < y") == "x &lt; <b>y</b>"


NAMES = st.sampled_from(("b", "i", "u", "a", "em"))


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> str:
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(("word", "word", "void", "element")))
        if kind == "word":
            parts.append(draw(st.sampled_from(("one ", "two ", "three ", " . "))))
        elif kind == "void":
            parts.append("<img>")
        elif depth:
            name = draw(NAMES)
            parts.append(f"<{name}>{draw(trees(depth - 1))}</{name}>")
    return "".join(parts)


@given(trees(), st.lists(st.sampled_from(("eins", "zwei", "&", ".", "<x>")), max_size=6), st.data())
def test_every_tag_comes_once_and_all_elements_stay_well_formed(
    source: str, words: list[str], data: st.DataObject
):
    translation = " ".join(words)
    for segment in segments(source, True):
        if not isinstance(segment, Segment):
            continue
        sources, targets = word_spans(segment.text), word_spans(translation)
        number = st.integers(0, len(sources) - 1)
        links = [
            WordLink(sources[data.draw(number)], span, data.draw(st.floats(0.1, 1)))
            for span in targets
            if data.draw(st.booleans())
        ]
        found = with_elements(segment, translation, links)
        tags = re.compile(r"</?[a-z]+>")
        assert sorted(tags.findall(found)) == sorted(tags.findall(segment.source))
        stack: list[str] = []
        for token in tokens(found, True):
            if token.kind is Kind.OPEN:
                stack.append(token.name)
            elif token.kind is Kind.CLOSE:
                assert stack.pop() == token.name
        assert not stack
        if translation != segment.text:
            plain = "".join(t.text for t in tokens(found, True) if t.kind is Kind.TEXT)
            assert "".join(plain.split()) == "".join(translation.split())
