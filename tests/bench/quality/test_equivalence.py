import unicodedata

import pytest
from attendant_client import Client

from bench.quality import equivalence
from bench.quality.equivalence import (
    SPELLINGS,
    difference,
    inserting,
    measure_mixtures,
    measure_spellings,
    measure_texts,
)
from bench.servers import running_server

BUNDLES = equivalence.__file__.removesuffix("bench/quality/equivalence.py") + "bundles"
ENGLISH = ["The Müllers see the train.", "Where is the station?", "Tell me."]
GERMAN = ["Können wir gehen?", "Wo ist der Bahnhof?", "Ich höre dich."]


def test_a_character_is_inserted_into_words_and_not_into_numbers():
    assert inserting("|")("It costs 1000 euros") == "It| co|sts 1000 eu|ros"


def test_all_spellings_but_the_first_change_a_text_and_not_what_it_says():
    text = "Die Müllers gehen hinaus, ½ Stunde."
    for name, spell in SPELLINGS.items():
        assert (spell(text) == text) == (name == "the same again")
    assert unicodedata.normalize("NFC", SPELLINGS["NFD"](text)) == text


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ([(1, -0.5), (2, -0.7)], "same"),
        ([(1, -0.51), (2, -0.7)], "same"),
        ([(1, -0.6), (2, -0.7)], "different"),
        ([(1, -0.5), (3, -0.72)], "tie"),
        ([(1, -0.5), (3, -0.9)], "different"),
        ([(1, -0.5)], "different"),
    ],
)
def test_two_translations_are_the_same_within_the_bound_or_tied_or_different(other, kind):
    assert difference([(1, -0.5), (2, -0.7)], other) == kind


def test_the_bench_counts_differences_of_the_built_in_models(monkeypatch):
    monkeypatch.setattr(equivalence, "NUM_CALLS", 12)
    monkeypatch.setattr(equivalence, "NUM_TRIPLES", 1)
    flags = [f"--bundles={BUNDLES}", "--models=bert-en-de,de-en,en-de", "--num-threads=1"]
    with running_server(*flags) as server, Client(server.target) as client:
        rows = measure_spellings(client, {"English": ENGLISH, "German": GERMAN})
        found = {str(row["spelling"]): row for row in rows}
        assert found["NFD"]["changed"] == 3
        for name in ("the same again", "NFD", "soft hyphens"):
            assert found[name]["translations"] == found[name]["vectors"] == 0
        references = {e: [g] for e, g in zip(ENGLISH, GERMAN, strict=True)}
        texts = measure_texts(client, references)
        assert (texts["num_texts"], texts["num_different"]) == (1, 0)
        assert texts["bleu_of_texts"] == texts["bleu_by_sentence"] > 0
        mixtures = measure_mixtures(client, [*ENGLISH, "No.", "Yes, please."])
        assert mixtures["num_calls"] == 12
        assert mixtures["different"] == 0
