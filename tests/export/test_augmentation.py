"""Changed copies of training pairs, and the list of short phrases that is trained on."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from attendant_export.data.augmentation import (
    CHANGES,
    NO_AUGMENTATION,
    casual_form,
    drop_final_punctuation,
    lower_case,
    lower_first,
    parse_augmentation,
    upper_case,
)
from attendant_export.data.changed_names import change_names
from attendant_export.data.changed_numbers import change_numbers
from attendant_export.data.text_files import read_pairs
from attendant_export.data.tokenizer import train_translation_tokenizer

from bench.quality.first_contact import read_phrases, words_of
from tests.support.pairs import pair_dataset

PHRASES = [
    Path(__file__).parents[2] / "export/data" / name
    for name in ("short_phrases.en-de.tsv", "phrase_patterns.en-de.tsv")
]
SENTENCES = [
    ("I have 25 apples.", "Ich habe 25 Äpfel."),
    ("Tom is here.", "Tom ist hier."),
    ("Stop!", "Stopp!"),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("I have 25 apples.", "Ich habe 25 Äpfel."),
        ("I have twenty-five apples.", "Ich habe 25 Äpfel."),
        ("I have 25 apples.", "Ich habe fünfundzwanzig Äpfel."),
        ("Two and three are five.", "Zwei und drei sind fünf."),
    ],
)
def test_numbers_become_the_same_other_digits_on_both_sides(source, target, rng):
    for _ in range(20):
        changed = change_numbers(source, target, rng)
        assert numbers(changed[0]) == numbers(changed[1])
        assert min(map(int, numbers(changed[0]))) >= 2
        words = [re.sub(r"\d+", "", text) for text in changed]
        assert all(number not in " ".join(words).lower() for number in ("two", "zwei", "fünf"))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("I have one apple.", "Ich habe einen Apfel."),
        ("I have 1 apple.", "Ich habe 1 Apfel."),
        ("It is 10 miles away.", "Es ist 16 Kilometer entfernt."),
        ("He left at 2:30.", "Er ging um halb drei."),
        ("It has 10,000 books.", "Es hat 10000 Bücher."),
        ("It weighs 2.5 kilos.", "Es wiegt 2,5 Kilo."),
        ("I have two dogs and 1 cat.", "Ich habe zwei Hunde und 1 Katze."),
        ("The iPhone4 is old.", "Das iPhone4 ist alt."),
    ],
)
def test_numbers_stay_that_the_sides_do_not_share_or_that_words_agree_with(source, target, rng):
    assert change_numbers(source, target, rng) == (source, target)


def test_a_time_a_year_and_a_day_become_others_of_their_kind(rng):
    for _ in range(50):
        time = change_numbers("It is 2:30.", "Es ist 2.30 Uhr.", rng)
        assert time[0][6:-1].replace(":", ".") == time[1][7:-5]
        hours, minutes = map(int, numbers(time[0]))
        assert hours < 24
        assert minutes < 60
        year = change_numbers("It was in 1989.", "Es war 1989.", rng)
        assert 1000 <= int(numbers(year[0])[0]) < 2100
        day = change_numbers("on October 20th", "am 20. Oktober", rng)
        assert day[1] == f"am {numbers(day[0])[0]}. Oktober"
        assert 2 <= int(numbers(day[0])[0]) <= 31
        assert re.search(r"(?<!1)2nd|(?<!1)3rd|(?<!1)1st|[04-9]th|1[123]th", day[0])


def test_a_name_becomes_another_one_on_both_sides(rng):
    found = set()
    for _ in range(20):
        source, target = change_names(
            "Did Tom see Tom and Ken in Boston?", "Hat Tom Tom und Ken in Boston gesehen?", rng
        )
        first, second = re.findall(r"(?:Did|see) (\w+)", source)
        assert first == second
        assert Counter(source.split())[first] == Counter(target.split())[first]
        assert set(re.findall("[A-Z]\\w+", source)[1:]) == set(re.findall("[A-Z]\\w+", target)[1:])
        found.add(first)
    assert len(found) > 10


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("Tom's dog is old.", "Toms Hund ist alt."),
        ("Mary is old.", "Maria ist alt."),
        ("It rains in April.", "Es regnet im April."),
        ("Winter is cold.", "Der Winter ist kalt."),
        ("Tom likes Tom.", "Tom mag sich."),
    ],
)
def test_words_stay_that_are_no_names_or_differ_between_the_sides(source, target, rng):
    assert change_names(source, target, rng) == (source, target)


def test_a_clause_keeps_the_punctuation_of_its_translation_and_a_phrase_does_not(rng):
    clause = ("Where is the dog?", "Wo ist der Hund?")
    assert drop_final_punctuation(*clause, rng) == ("Where is the dog", "Wo ist der Hund?")
    assert drop_final_punctuation("Wait!", "Warte!", rng) == ("Wait", "Warte")
    assert drop_final_punctuation("Wait", "Warte!", rng) == ("Wait", "Warte!")
    assert drop_final_punctuation("?!", "?!", rng) == ("?!", "?!")


def test_the_translation_keeps_its_case_whatever_that_of_the_source(rng):
    pair = ("I see Tom.", "Ich sehe Tom.")
    assert lower_case(*pair, rng) == ("i see tom.", "Ich sehe Tom.")
    assert upper_case(*pair, rng) == ("I SEE TOM.", "Ich sehe Tom.")
    assert lower_first(*pair, rng) == ("i see Tom.", "Ich sehe Tom.")
    assert casual_form("I see Tom.") == "i see tom"


def test_changes_depend_on_the_seed_alone_and_come_as_often_as_asked():
    pairs = SENTENCES * 500
    augmentation = parse_augmentation(["lower-case:0.2"])

    changed, again, other = (
        dict(augmentation.changed(pairs, np.random.default_rng(seed))) for seed in (7, 7, 8)
    )

    assert changed == again != other
    assert len(changed) / len(pairs) == pytest.approx(0.2, abs=0.04)
    assert all(changed[i] == (pairs[i][0].lower(), pairs[i][1]) for i in changed)


def test_every_kind_has_its_usual_probability_and_later_ones_win():
    usual = [(kind, probability) for kind, (_, probability) in CHANGES.items()]
    assert list(parse_augmentation(["all"]).probabilities) == usual
    assert parse_augmentation(["all:0.5", "names:0", "upper-case:1"]).probabilities == (
        ("numbers", 0.5),
        ("no-final-punctuation", 0.5),
        ("lower-case", 0.5),
        ("lower-first", 0.5),
        ("upper-case", 1.0),
    )
    assert not parse_augmentation([])


@pytest.mark.parametrize(
    "text", ["names:", "names:2", "names:-0.1", "names:nan", "names:a", "name"]
)
def test_a_kind_or_probability_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=f"--augment {text}: "):
        parse_augmentation([text])


def test_each_epoch_trains_on_other_changes_of_all_pairs(tmp_path):
    tokenizer = train_translation_tokenizer((text for pair in SENTENCES for text in pair), 150)
    dataset = pair_dataset(tmp_path, SENTENCES * 20, tokenizer)
    augmentation = parse_augmentation(["lower-case:0.5"])

    def epoch(seed, augmentation):
        batches = dataset.batches(100, np.random.default_rng(seed), augmentation)
        return sorted(tokenizer.decode(row) for batch in batches for row in batch.source.tolist())

    assert epoch(1, NO_AUGMENTATION) == sorted(source for source, _ in SENTENCES * 20)
    assert epoch(1, augmentation) == epoch(1, augmentation) != epoch(2, augmentation)
    assert {text.lower() for text in epoch(1, augmentation)} == {s.lower() for s, _ in SENTENCES}


def test_a_changed_pair_that_is_too_long_does_not_replace_its_pair(tmp_path):
    tokenizer = train_translation_tokenizer(["ab ab ab"], 20)
    dataset = pair_dataset(tmp_path, [("ab", "ab")] * 5, tokenizer, max_tokens=2)

    (batch,) = dataset.batches(100, np.random.default_rng(0), parse_augmentation(["upper-case:1"]))

    assert batch.source.tolist() == [tokenizer.encode("ab").ids] * 5


@pytest.mark.parametrize("file", PHRASES, ids=lambda path: path.name)
def test_no_phrase_of_the_first_contact_bench_is_trained_on(file):
    trained = {words_of(source) for source, _ in read_pairs(file)}

    assert not trained & {words_of(phrase.source) for phrase in read_phrases()}


def test_no_short_phrase_occurs_twice():
    pairs = [pair for file in PHRASES for pair in read_pairs(file)]

    assert len(set(pairs)) == len(pairs) > 2000
