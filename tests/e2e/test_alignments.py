"""Links between the words of texts and of their translations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import SPLITTING_NONE
from attendant.v1.translation_pb2 import (
    Hypothesis,
    Sampling,
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_server.application import piece_searches
from attendant_server.engine.pair_calls import AlignCall

from tests.support.application import TINY_BUNDLES
from tests.support.serving import Running, failure_of, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
TEXT = "The black dog does not want to see the cat."
LONG = (
    "  I would like two tickets, please.\n\nWhere is the station? "
    "Visit https://example.com today \U0001f600!"
)


@pytest.fixture(scope="module")
def running(loop, settings) -> Iterator[Running]:
    options = {"bundles": BUILT_IN, "models": ("en-de",), "precision": "auto"}
    with running_server(loop, settings(**options)) as server:
        yield server


def best(running: Running, text: str, **fields: Any) -> Hypothesis:
    request = TranslateRequest(texts=[text], return_alignments=True, **fields)
    return running.translation.Translate(request).translations[0].hypotheses[0]


def linked(text: str, hypothesis: Hypothesis) -> set[tuple[str, str]]:
    return {
        (
            text[link.source_start : link.source_end],
            hypothesis.text[link.target_start : link.target_end],
        )
        for link in hypothesis.alignments
    }


def test_words_are_linked_to_their_translations(running: Running):
    found = best(running, TEXT)
    assert {("dog", "Hund"), ("cat", "Katze"), ("black", "schwarze")} <= linked(TEXT, found)
    assert all(0 < link.weight <= 1 for link in found.alignments)
    places = [link.target_start for link in found.alignments]
    assert places == sorted(places)


def test_places_are_those_of_the_text_as_sent_over_all_sentences_and_copies(running: Running):
    found = best(running, LONG)
    assert {("tickets", "Fahrkarten"), ("Where", "Wo"), ("station", "Bahnhof")} <= linked(
        LONG, found
    )
    for source, target in linked(LONG, found):
        assert source == source.strip() != ""
        assert target == target.strip() != ""
        assert source == target or "example" not in source + target
    assert {("example", "example"), ("\U0001f600", "\U0001f600")} <= linked(LONG, found)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 4, "num_hypotheses": 3},
        {"num_hypotheses": 2, "sampling": Sampling(seed=5, top_k=2)},
        {"max_output_tokens": 3},
    ],
    ids=["n-best", "samples", "cut off"],
)
def test_every_hypothesis_has_its_links(running: Running, options: dict[str, Any]):
    request = TranslateRequest(
        texts=[TEXT], return_alignments=True, options=TranslateOptions(**options)
    )
    [translation] = running.translation.Translate(request).translations
    for hypothesis in translation.hypotheses:
        assert hypothesis.alignments
        for link in hypothesis.alignments:
            assert 0 <= link.source_start < link.source_end <= len(TEXT)
            assert 0 <= link.target_start < link.target_end <= len(hypothesis.text)


def test_links_do_not_depend_on_other_texts_of_the_call(running: Running):
    texts = [TEXT, LONG, " ", "Yes.", "\U0001f600"]
    request = TranslateRequest(texts=texts, return_alignments=True)
    response = running.translation.Translate(request)
    for text, translation in zip(texts, response.translations, strict=True):
        if translation.HasField("error"):
            assert text == " "
            continue
        [hypothesis] = translation.hypotheses
        alone = best(running, text)
        assert linked(text, hypothesis) == linked(text, alone)


def test_a_translation_that_continues_a_prefix_has_links_too(running: Running):
    prefix = "Der schwarze Hund"
    found = best(running, TEXT, target_prefixes=[f"  {prefix} "])
    assert found.text.startswith(prefix)
    assert {("dog", "Hund"), ("cat", "Katze")} <= linked(TEXT, found)


def test_the_last_message_of_a_stream_has_links(running: Running):
    request = StreamTranslateRequest(text=LONG, return_alignments=True)
    *_, last = running.translation.StreamTranslate(request)
    found = last.translation.hypotheses[0]
    assert linked(LONG, found) == linked(LONG, best(running, LONG))


def test_copies_are_placed_by_the_links_of_words(running: Running):
    text = "I am very tired \U0001f634 because I worked all night."
    plain = TranslateRequest(texts=[text, text.replace(" \U0001f634", "")])
    with_copy, without = (
        each.hypotheses[0] for each in running.translation.Translate(plain).translations
    )
    assert (
        with_copy.text == "Ich bin sehr müde \U0001f634, weil ich die ganze Nacht gearbeitet habe."
    )
    assert without.text == with_copy.text.replace(" \U0001f634", "")
    assert best(running, text).text == with_copy.text
    *deltas, last = running.translation.StreamTranslate(StreamTranslateRequest(text=text))
    assert "".join(each.delta for each in [*deltas, last]) == with_copy.text
    assert last.translation.hypotheses[0] == with_copy


def test_only_sentences_with_copies_among_their_words_are_aligned(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    aligned: list[int] = []

    class CountedCall(AlignCall):
        def __init__(self, pairs, deadline=None) -> None:
            aligned.append(len(pairs))
            super().__init__(pairs, deadline)

    monkeypatch.setattr(piece_searches, "AlignCall", CountedCall)
    texts = [TEXT, "I am happy. \U0001f600", "Where is it? \U0001f600 Here.", "https://a.org"]
    running.translation.Translate(TranslateRequest(texts=texts))
    assert not aligned
    for text in ("I see \U0001f600 there.", f"{TEXT} I see \U0001f600 there. {TEXT}"):
        list(running.translation.StreamTranslate(StreamTranslateRequest(text=text)))
        running.translation.Translate(TranslateRequest(texts=[*texts, text]))
    assert aligned == [1, 1, 1, 1]


def test_answers_have_no_links_unless_they_are_wanted(running: Running):
    request = TranslateRequest(texts=[TEXT])
    [translation] = running.translation.Translate(request).translations
    assert not translation.hypotheses[0].alignments


def test_a_truncated_text_has_links_to_the_part_that_was_read(running: Running):
    limit = running.models.GetModel(GetModelRequest(model="en-de")).limits.max_source_tokens
    text = "The dog sees the cat, and " * limit
    found = best(running, text, splitting=SPLITTING_NONE, truncation="TRUNCATION_RIGHT")
    assert all(link.source_end <= len(text) for link in found.alignments)


def test_given_translations_are_aligned_to_their_sources(running: Running):
    pairs = [
        TranslationPair(source="  The dog sees me.", target="Mich sieht\nder Hund."),
        TranslationPair(source="No.", target=""),
        TranslationPair(source=TEXT, target="Der schwarze Hund will die Katze nicht sehen."),
    ]
    request = ScoreRequest(pairs=pairs, return_alignments=True, return_tokens=True)
    first, failed, last = running.translation.Score(request).scores
    assert failed.HasField("error")
    for pair, score, expected in (
        (pairs[0], first, {("dog", "Hund"), ("sees", "sieht")}),
        (pairs[2], last, {("dog", "Hund"), ("cat", "Katze")}),
    ):
        found = {
            (
                pair.source[link.source_start : link.source_end],
                pair.target[link.target_start : link.target_end],
            )
            for link in score.alignments
        }
        assert expected <= found
    plain = running.translation.Score(ScoreRequest(pairs=pairs, return_tokens=True)).scores
    assert list(plain[0].log_probabilities) == pytest.approx(first.log_probabilities, abs=0.05)
    assert not plain[0].alignments


def test_models_say_whether_they_align_words(running: Running, start):
    assert running.models.GetModel(GetModelRequest(model="en-de")).aligns_words
    other = start(bundles=TINY_BUNDLES, models=("tiny-en-de",))
    assert not other.models.GetModel(GetModelRequest(model="tiny-en-de")).aligns_words
    request = TranslateRequest(texts=[TEXT], return_alignments=True)
    failure = failure_of(other.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == "return_alignments: tiny-en-de/1 has no aligner"
    scoring = ScoreRequest(pairs=[TranslationPair(source="a", target="b")], return_alignments=True)
    failure = failure_of(other.translation.Score, scoring)
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
