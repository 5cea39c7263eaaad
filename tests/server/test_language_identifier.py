"""The wrapper of the library gives the probabilities of the library itself."""

import math
import tempfile

import pytest
from attendant_server.language_identifier import TAGS, LanguageIdentifier
from py3langid import langid

TEXTS = (
    "Wo ist der Bahnhof?",
    "Where is the nearest train station?",
    "PRIÈRE DE NE PAS FUMER",
    "これは日本語の文です。",
    "Zagreb je glavni grad.",
    "1 x 2",
)


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier()


@pytest.fixture(scope="module")
def original() -> langid.LanguageIdentifier:
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@pytest.mark.parametrize("text", TEXTS)
def test_the_normalized_numbers_are_the_librarys_probabilities(identifier, original, text):
    numbers = identifier.log_probabilities(text)
    best = max(numbers.values())
    total = sum(math.exp(number - best) for number in numbers.values())
    found = {tag: math.exp(number - best) / total for tag, number in numbers.items()}
    expected = {TAGS.get(label, label): value for label, value in original.rank(text)}
    # The library adds the probabilities of two scripts of a language, where the identifier takes
    # the higher one.
    assert found == pytest.approx(expected, abs=0.002)


def test_the_model_is_loaded_without_writing_files(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    assert LanguageIdentifier().log_probabilities(TEXTS[0])


def test_every_language_has_a_number(identifier):
    assert set(identifier.log_probabilities(TEXTS[0])) == identifier.languages
    assert {"de", "en", "fr", "ki"} <= identifier.languages
    assert "kik" not in identifier.languages


@pytest.mark.parametrize("text", ["OK", "", "👍"])
def test_a_text_without_any_trait_has_no_numbers(identifier, text):
    assert identifier.log_probabilities(text) == {}
