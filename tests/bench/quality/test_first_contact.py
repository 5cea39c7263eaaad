import re
import sys
from collections import Counter

import pytest
from attendant_client import Client

from bench.quality import first_contact
from bench.quality.first_contact import (
    HELD_OUT,
    OPEN,
    PARTS,
    Answer,
    Phrase,
    counts,
    counts_table,
    measure,
    read_phrases,
    words_of,
    wrong_lines,
)
from bench.servers import flags_for, running_server
from tests.support.bundles import sentence_pairs

PHRASES = read_phrases()


def answer(text: str, *accepted: str, group: str = "replies", part: str = OPEN) -> Answer:
    return Answer(Phrase("Yes.", accepted or ("Ja.", "Jawohl."), group, part), text)


def test_there_are_twenty_phrases_in_each_of_ten_groups_and_ten_of_each_are_held_out():
    sizes = Counter((phrase.group, phrase.part) for phrase in PHRASES)
    groups = {phrase.group for phrase in PHRASES}

    assert len(PHRASES) == 200
    assert sizes == {(group, part): 10 for group in groups for part in PARTS}


def test_no_phrase_occurs_twice():
    assert len({phrase.source for phrase in PHRASES}) == len(PHRASES)


def test_no_phrase_that_is_held_out_differs_in_capitals_and_final_punctuation_only():
    held_out = {words_of(phrase.source) for phrase in PHRASES if phrase.part == HELD_OUT} - {""}
    still_open = {words_of(phrase.source) for phrase in PHRASES if phrase.part == OPEN}

    assert not held_out & still_open


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.source)
def test_a_phrase_has_different_accepted_translations_without_white_space_around(phrase: Phrase):
    texts = (phrase.source, *phrase.accepted)

    assert all(text and text == text.strip() and not re.search(r"[\t|]|  ", text) for text in texts)
    assert len(set(phrase.accepted)) == len(phrase.accepted)


@pytest.mark.parametrize("text", ["Ja.", " Jawohl.\n"])
def test_a_translation_is_right_if_it_is_an_accepted_one(text: str):
    assert answer(text).is_right
    assert not answer(text).is_almost_right


@pytest.mark.parametrize("text", ["ja.", "Ja", "JAWOHL!"])
def test_capitals_and_final_punctuation_alone_make_a_translation_almost_right(text: str):
    assert not answer(text).is_right
    assert answer(text).is_almost_right


@pytest.mark.parametrize("text", ["", "Nein.", "Ja, ja."])
def test_other_words_make_a_translation_wrong(text: str):
    assert not answer(text).is_right
    assert not answer(text).is_almost_right


def test_answers_are_counted_by_group_by_part_and_together():
    found = counts([answer("Ja."), answer("ja", part=HELD_OUT), answer("?", group="dates")])

    assert found == {
        "replies": {"right": 1, "almost": 1, "phrases": 2},
        "dates": {"right": 0, "almost": 0, "phrases": 1},
        "open": {"right": 1, "almost": 0, "phrases": 2},
        "held-out": {"right": 0, "almost": 1, "phrases": 1},
        "all": {"right": 1, "almost": 1, "phrases": 3},
    }
    assert "| dates | 1 | 0 | 0 |" in counts_table({"greedy": found})


def test_wrong_answers_of_the_given_parts_are_shown_with_an_accepted_one():
    answers = [answer("Ja."), answer("ja"), answer("Nein.", part=HELD_OUT)]

    assert wrong_lines(answers, [OPEN]) == "replies\tYes.\tja\tJa."
    assert len(wrong_lines(answers, PARTS).splitlines()) == 2


def test_the_answers_of_a_server_are_counted(translation_bundle, tmp_path, monkeypatch, capsys):
    source, target = sentence_pairs()[0]
    phrases = [
        Phrase(source, ("Nein.", target), "names", OPEN),
        Phrase(source, ("Nie.",), "dates", OPEN),
        Phrase("The king.", ("Nie.",), "dates", HELD_OUT),
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(first_contact, "read_phrases", lambda: phrases)
    flags = [*flags_for(translation_bundle), "--num-threads=1"]
    with running_server(*flags) as server, Client(server.target) as client:
        answers = measure(client, "tiny-en-de", phrases)
        command = ["first_contact", f"--target={server.target}", "--model=tiny-en-de"]
        monkeypatch.setattr(sys, "argv", command)
        first_contact.main()

    printed = capsys.readouterr().out
    for found in answers.values():
        assert [each.is_right for each in found] == [True, False, False]
    assert "| names | 1 | 1 | 0 | 1 | 0 |" in printed
    assert f"dates\t{source}\t{target}\tNie." in printed
    assert "The king." not in printed
    assert (tmp_path / "build/bench/first-contact-tiny-en-de.json").exists()
