"""Glossaries: entries, files, terms in texts, and places of terms in translations."""

import asyncio
import contextvars
import sys
import tracemalloc
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from attendant.v1 import translation_pb2
from attendant_glossaries import GlossaryEntry
from attendant_server.application import term_placement
from attendant_server.application.alignment import WordLink
from attendant_server.application.glossaries import Glossary, read_entries, request_entries
from attendant_server.application.glossary_folder import GlossaryFolder
from attendant_server.application.held_memory import HeldMemory
from attendant_server.application.jobs import JobRunner
from attendant_server.application.term_placement import (
    attention_of_words,
    placed_terms,
    span_of_missing,
)
from attendant_server.application.words import word_spans
from attendant_server.errors import GlossaryNotFound, GlossaryUnreadable, InvalidRequest, QueueFull
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from(["cat", "Cat", "black", "dog", "a", "New", "York"]), max_size=12)


def entry(source, *targets):
    return GlossaryEntry.of(source, targets or ["x"], "entry")


def found(text, *terms):
    glossary = Glossary(
        [entry(*term) if isinstance(term, tuple) else entry(term) for term in terms]
    )
    return [(text[slice(*match.span)], match.entry.source) for match in glossary.matches(text)]


def test_terms_are_found_as_whole_words():
    assert found("The cat, concatenated.", "cat") == [("cat", "cat")]
    assert found("a train  station", "train station") == [("train  station", "train station")]
    assert found("an e-mail", "e-mail") == [("e-mail", "e-mail")]
    assert found("我的猫", "猫") == [("猫", "猫")]
    assert found("cafe\u0301 crème", "caf\u00e9") == [("cafe\u0301", "caf\u00e9")]


def test_a_term_in_lower_case_is_found_in_any_case_and_others_only_in_their_own():
    assert [text for text, _ in found("Cat CAT cat", "cat")] == ["Cat", "CAT", "cat"]
    assert [text for text, _ in found("apple Apple APPLE", "Apple")] == ["Apple"]
    assert found("US us", "us", "US") == [("US", "US"), ("us", "us")]


def test_the_longest_of_overlapping_terms_counts():
    text = "the main train station"
    assert found(text, "train", "train station", "station", "main train station") == [
        ("main train station", "main train station")
    ]
    assert found("a b c", "a b", "b c") == [("a b", "a b")]


@given(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=5))
def test_terms_are_in_order_without_overlaps_and_equal_their_entries(words, terms):
    text = " ".join(words)
    matches = Glossary([entry(" ".join(term)) for term in terms]).matches(text)
    ends = [0]
    for match in matches:
        start, end = match.span
        assert start >= ends[-1]
        ends.append(end)
        assert text[start:end].casefold() == match.entry.source.casefold()


@given(WORDS, WORDS.filter(bool))
def test_no_occurrence_of_a_single_term_is_missed(words, term):
    text, source = " ".join(words), " ".join(term)
    is_exact = source != source.casefold()
    num_found = len(Glossary([entry(source)]).matches(text))
    expected = position = 0
    wanted = term if is_exact else [word.casefold() for word in term]
    folded = words if is_exact else [word.casefold() for word in words]
    while position < len(words):
        is_here = folded[position : position + len(term)] == wanted
        expected += is_here
        position += len(term) if is_here else 1
    assert num_found == expected


def test_of_terms_with_the_same_words_the_last_one_counts():
    assert found("an e-mail", "e - mail", "e-mail") == [("e-mail", "e-mail")]


def num_calls(work):
    counts = Counter[str]()  # also of functions in C
    sys.setprofile(lambda _frame, event, _function: counts.update([event]))
    try:
        work()
    finally:
        sys.setprofile(None)
    return counts["call"] + counts["c_call"]


@pytest.mark.parametrize(
    "terms", [[f"a {n}" for n in range(999)], ["a " * n + "c" for n in range(1, 99)]]
)
def test_the_time_for_a_word_hardly_grows_with_the_terms(terms):
    text = "a " * 98 + "b " + "a " * 98
    one, many = Glossary([entry("a a c")]), Glossary(map(entry, terms))
    word_spans(text)  # compiles a pattern at first
    assert num_calls(lambda: many.matches(text)) < 2 * num_calls(lambda: one.matches(text))


def test_terms_that_begin_with_one_another_are_looked_for_by_their_lengths():
    glossary = Glossary([entry(" ".join("a" * n), "b") for n in range(1, 90)])
    found = glossary.matches("a " * 200)
    assert [len(match.entry.source.split()) for match in found] == [89, 89, 22]


def test_occurrences_that_were_taken_are_not_tried_again(monkeypatch):
    matches = Glossary([entry("a", "b")]).matches("a " * 300)
    num_tried = 0
    overlap = term_placement._overlap

    def counted(one, two):
        nonlocal num_tried
        num_tried += 1
        return overlap(one, two)

    monkeypatch.setattr(term_placement, "_overlap", counted)
    terms = placed_terms(matches, "b " * 299)
    assert [term.target for term in terms] == [(2 * i, 2 * i + 1) for i in range(299)] + [None]
    assert num_tried < 3000


@pytest.mark.parametrize(
    ("source", "targets", "problem"),
    [
        ("", ["x"], r"glossary_entries\[1\].source: must not be empty"),
        (" \t", ["x"], r"glossary_entries\[1\].source: must not be empty"),
        ("cat", [], r"glossary_entries\[1\].targets: must have between 1 and 16 values, got 0"),
        (
            "cat",
            ["x"] * 17,
            r"glossary_entries\[1\].targets: must have .* values, got 17",
        ),
        ("cat", ["x", ""], r"glossary_entries\[1\].targets\[1\]: must not be empty"),
        ("c" * 201, ["x"], r"glossary_entries\[1\].source: at most 200 characters, got 201"),
    ],
)
def test_a_bad_entry_is_refused_by_the_name_of_its_field(source, targets, problem):
    with pytest.raises(InvalidRequest, match=f"^{problem}$"):
        request_entries([("dog", ["x"]), (source, targets)])


def placed(translation, *terms, links=()):
    text = " ".join(source for source, *_ in terms)
    matches = Glossary([entry(*term) for term in terms]).matches(text)
    found = placed_terms(matches, translation, links)
    return [None if term.target is None else translation[slice(*term.target)] for term in found]


def test_a_translation_has_a_term_as_whole_words_only():
    assert placed("der Kater schläft", ("cat", "Kater")) == ["Kater"]
    assert placed("die Katersuppe", ("cat", "Kater")) == [None]
    assert placed("der Kater's", ("cat", "Kater")) == [None]
    assert placed("schlafend", ("asleep", "schlafend")) == ["schlafend"]
    assert placed("Schlafend lag er", ("asleep", "schlafend")) == ["Schlafend"]
    assert placed("KATER", ("cat", "Kater")) == [None]


def test_each_occurrence_of_a_term_has_a_place_of_its_own():
    terms = ("cat", "Kater"), ("tom", "Kater")
    assert placed("ein Kater", *terms) == ["Kater", None]
    assert placed("ein Kater und noch ein Kater", *terms) == ["Kater", "Kater"]


def test_links_decide_which_term_a_word_belongs_to():
    matches = Glossary([entry("cat", "Tier"), entry("dog", "Tier")]).matches("cat dog")
    links = [WordLink((4, 7), (0, 4), 1.0)]
    terms = placed_terms(matches, "Tier da", links)
    assert [term.target for term in terms] == [None, (0, 4)]


def test_a_missing_term_replaces_the_linked_words_or_that_of_the_greatest_attention():
    [match] = Glossary([entry("cat", "Kater")]).matches("a cat")
    translation = "eine Katze schläft"
    attention = attention_of_words(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32),
        [(0, 1), (2, 5)],
        word_spans(translation),
    )
    links = [WordLink((2, 5), (11, 18), 0.5)]

    def span(links, taken=(), first=0):
        return span_of_missing(match, translation, links, attention, taken, first)

    assert span(links) == (11, 18)
    assert span([*links, WordLink((2, 5), (5, 10), 0.5)]) == (5, 18)
    assert span([*links, WordLink((2, 5), (0, 4), 0.5)]) == (0, 4)
    assert span([]) == (5, 10)
    assert span([], taken=[(5, 10)]) == (11, 18)
    assert span([], first=11) == (11, 18)
    assert span([], first=18) == (18, 18)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "animals.tsv").write_text(
        "# comment\ncat\tKater\tKaters\n\ndog\tHund\n", encoding="utf-8"
    )
    return tmp_path


def glossary(folder, name, entries=()):
    with closing(JobRunner(1)) as jobs:
        return asyncio.run(GlossaryFolder(folder, jobs).glossary(name, entries))


def terms(glossary, text):
    """The translations of the terms of a text."""
    return {match.entry.source: list(match.entry.targets) for match in glossary.matches(text)}


def test_a_stored_glossary_is_read_from_its_file(folder):
    assert terms(glossary(folder, "animals"), "cat dog cow") == {
        "cat": ["Kater", "Katers"],
        "dog": ["Hund"],
    }


def test_only_line_ends_separate_the_entries_of_a_file(folder):
    (folder / "spaces.tsv").write_bytes("big\x0ccat\tgroßer\u2028Kater\r\ndog\tHund".encode())
    assert terms(glossary(folder, "spaces"), "big cat dog") == {
        "big cat": ["großer Kater"],
        "dog": ["Hund"],
    }


def test_entries_of_a_request_replace_stored_ones_of_the_same_term(folder):
    added = [entry("dog", "Köter"), entry("cow", "Kuh"), entry("cat dog", "Katzenhund")]
    found = glossary(folder, "animals", added)
    assert terms(found, "cat, dog, cow, cat dog, Dog") == {
        "cat": ["Kater", "Katers"],
        "dog": ["Köter"],
        "cow": ["Kuh"],
        "cat dog": ["Katzenhund"],
    }


ENTRIES = st.lists(st.tuples(WORDS.filter(bool), st.sampled_from("xyz")), max_size=5)


@given(WORDS, ENTRIES, ENTRIES)
def test_further_entries_count_like_the_last_ones_of_one_glossary(words, stored, added):
    text = " ".join(words)
    base, further = ([entry(" ".join(t), x) for t, x in own] for own in (stored, added))
    found = Glossary(further, Glossary(base)).matches(text)
    assert found == Glossary([*base, *further]).matches(text)


def test_further_entries_do_not_copy_those_of_a_stored_glossary():
    base = Glossary([entry(f"term {number}") for number in range(2000)])
    tracemalloc.start()
    found = Glossary([entry("term", "y")], base)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert terms(found, "term 7, term") == {"term 7": ["x"], "term": ["y"]}
    assert taken < 10_000


def held_by_entries(entries) -> tuple[int, int]:
    """What entries of a request count as, and the memory that they and their glossary take."""
    memory = HeldMemory(1_000_000_000, 8, print)
    memory.hold("a", 0).make_current()
    with closing(JobRunner(1)) as jobs:
        tracemalloc.start()
        found = Glossary(asyncio.run(read_entries(jobs, len(entries), entries)))
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found.matches(entries[0][0])
    return memory.num_bytes, taken


@pytest.mark.parametrize("num_targets", [1, 16])
def test_entries_of_a_request_count_as_a_third_of_their_memory(num_targets):
    targets = [chr(0x430 + number) for number in range(num_targets)]
    messages = [translation_pb2.GlossaryEntry(source=f"{i:x}", targets=targets) for i in range(700)]
    entries = [(each.source, each.targets) for each in messages]  # whose strings are made when read
    counted, taken = contextvars.copy_context().run(held_by_entries, entries)
    assert taken <= 3 * counted <= 2 * taken


def test_entries_of_a_request_for_which_there_is_no_room_are_refused():
    def refused():
        memory = HeldMemory(1000, 8, print)
        memory.hold("a", 500)
        memory.hold("a", 10).make_current()
        with closing(JobRunner(1)) as jobs, pytest.raises(QueueFull, match="2280 more would"):
            asyncio.run(read_entries(jobs, 10, [("cat", ["Kater"])] * 10))
        return memory.num_bytes

    assert contextvars.copy_context().run(refused) == 510


@pytest.mark.parametrize("name", ["plants", "../animals", "animals.tsv", "", "ä"])
def test_a_glossary_that_is_not_stored_is_not_found(folder, name):
    if not name:
        assert glossary(folder, name) is None
        return
    with pytest.raises(GlossaryNotFound):
        glossary(folder, name)


def test_without_a_folder_no_glossary_is_found():
    with pytest.raises(GlossaryNotFound):
        glossary(None, "animals")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"cat\n", r"the glossary broken: line 1\.targets: must have between 1"),
        (b"cat\tKater\n\tHund\n", r"the glossary broken: line 2\.source: must not be empty"),
        ("cat\tKa\u2028ter\x0c\r\ndog\n".encode(), r"the glossary broken: line 2\.targets: must"),
        (b"cat\tK\xff", "the glossary broken: is not UTF-8"),
        (b"cat\tx\n" * 10_001, "the glossary broken: has more than 10000 entries"),
    ],
)
def test_a_broken_file_is_named_with_its_line(folder, content, problem):
    (folder / "broken.tsv").write_bytes(content)
    with pytest.raises(GlossaryUnreadable, match=problem):
        glossary(folder, "broken")


def test_a_changed_file_is_read_again(folder):
    with closing(JobRunner(1)) as jobs:
        stored = GlossaryFolder(folder, jobs)
        first = asyncio.run(stored.glossary("animals", ()))
        assert asyncio.run(stored.glossary("animals", ())) is first
        (folder / "animals.tsv").write_text("cow\tKuh\n", encoding="utf-8")
        changed = asyncio.run(stored.glossary("animals", ()))
        assert changed is not None
        assert terms(changed, "cat cow") == {"cow": ["Kuh"]}
