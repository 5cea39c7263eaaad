"""Translation over a pivot language, with the built-in bundles: German to French over English."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1.model_pb2 import ListModelsRequest
from attendant.v1.text_pb2 import (
    MARKUP_HTML,
    OFFSET_UNIT_CODE_POINTS,
    OFFSET_UNIT_UTF8_BYTES,
    SPLITTING_NONE,
    SPLITTING_SENTENCES,
)
from attendant.v1.translation_pb2 import (
    FINISH_REASON_LENGTH,
    GlossaryEntry,
    Sampling,
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslateResponse,
    TranslationPair,
)
from attendant_client import Client
from attendant_client.__main__ import main
from attendant_server.application.markup_translation import MarkupTranslator
from attendant_server.application.pivot_places import LEAST_WEIGHT

from tests.recorded.texts import ODD
from tests.support.bulk import each_result, translate_requests
from tests.support.serving import Running, failure_of, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
KEY = "de-en/1+en-fr/1"
LANGUAGES: dict[str, Any] = {"source_language": "de", "target_language": "fr"}
TEXT = "Wo ist der Bahnhof?"
TEXTS = [
    TEXT,
    "Der schwarze Hund schläft.",
    "Ich möchte ein Buch lesen.\n\nDas Wetter ist heute sehr schön. Wir gehen nach Hause!",
]


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return {
        "bundles": BUILT_IN,
        "models": ("de-en", "en-fr"),
        "pivots": ("en-fr+de-en", "no-such+en-fr", "de-en+en-fr"),
        "precision": "auto",
    }


@pytest.fixture(scope="module")
def running(loop, settings, options) -> Iterator[Running]:
    with running_server(loop, settings(**options)) as server:
        yield server


def translate(running: Running, texts: list[str], **fields: Any) -> TranslateResponse:
    request = TranslateRequest(texts=texts, **(LANGUAGES | fields))
    response: TranslateResponse = running.translation.Translate(request)
    return response


def english(running: Running, texts: list[str], **fields: Any) -> TranslateResponse:
    fields |= {"source_language": "de", "target_language": "en"}
    return translate(running, texts, **fields)


def best(response: TranslateResponse) -> list[str]:
    return [each.hypotheses[0].text for each in response.translations]


def test_a_text_gets_what_two_calls_would_give_it(running: Running):
    search = TranslateOptions(beam_size=4, length_penalty=0.5)
    middle = english(running, TEXTS, options=search)
    search.MergeFrom(TranslateOptions(num_hypotheses=3, return_tokens=True))
    second = {"source_language": "en", "target_language": "fr"}
    expected = translate(running, best(middle), options=search, **second)
    found = translate(running, TEXTS, options=search)
    assert [each.hypotheses for each in found.translations] == [
        each.hypotheses for each in expected.translations
    ]
    assert [each.num_source_tokens for each in found.translations] == [
        each.num_source_tokens for each in middle.translations
    ]
    assert (middle.model, expected.model, found.model) == ("de-en/1", "en-fr/1", KEY)
    for count in ("num_input_tokens", "num_output_tokens"):
        both = sum(getattr(each.token_counts, count) for each in (middle, expected))
        assert getattr(found.token_counts, count) == both
    for phase in ("queue", "tokenize", "encode", "decode"):
        assert getattr(found.timings, phase).ToNanoseconds() >= 0


def test_a_stream_gives_the_words_of_the_second_model(running: Running):
    fields: dict[str, Any] = {"return_sentences": True, "return_alignments": True}
    request = StreamTranslateRequest(text=TEXTS[2], **LANGUAGES, **fields)
    *pieces, last = running.translation.StreamTranslate(request)
    whole = translate(running, TEXTS[2:], **fields)
    assert len(pieces) > 2
    assert "".join(each.delta for each in [*pieces, last]) == best(whole)[0]
    assert last.translation == whole.translations[0]
    assert (last.model, last.token_counts) == (KEY, whole.token_counts)


def test_a_model_that_has_both_languages_is_used_alone(running: Running):
    fields = {"source_language": "en", "target_language": "fr"}
    assert translate(running, ["The dog."], **fields).model == "en-fr/1"
    assert english(running, [TEXT]).model == "de-en/1"
    assert translate(running, [TEXT], source_language="de-AT", target_language="fr-CA").model == KEY


@pytest.mark.parametrize(
    ("fields", "code", "problem"),
    [
        ({"model": "en-fr"}, "INVALID_ARGUMENT", "source_language: en-fr/1 has en, not 'de'"),
        ({"target_language": "nl"}, "NOT_FOUND", "source_language de, target_language nl"),
        ({"source_language": "fr", "target_language": "de"}, "NOT_FOUND", "source_language fr"),
        ({"target_language": "f r"}, "INVALID_ARGUMENT", "target_language: must be a language tag"),
        ({"texts": []}, "INVALID_ARGUMENT", "texts: at least 1, got 0"),
        ({"target_prefixes": ["a", "b"]}, "INVALID_ARGUMENT", "as many as texts, which are 1"),
        ({"markup": 77}, "INVALID_ARGUMENT", "markup: has no value 77"),
        (
            {"markup": MARKUP_HTML, "return_sentences": True},
            "INVALID_ARGUMENT",
            "return_sentences: is for texts without markup only",
        ),
        (
            {"target_prefixes": ["Où"], "splitting": SPLITTING_SENTENCES},
            "INVALID_ARGUMENT",
            "splitting: is for texts without target prefixes or alternatives only",
        ),
        (
            {"options": TranslateOptions(suppressed_texts=["no such token"])},
            "INVALID_ARGUMENT",
            "options.suppressed_texts",
        ),
        (
            {"glossary": "animals"},
            "INVALID_ARGUMENT",
            f"glossary: is for single models only, and {KEY} are two",
        ),
        (
            {"glossary_entries": [GlossaryEntry(source="Hund", targets=["chien"])]},
            "INVALID_ARGUMENT",
            f"glossary_entries: is for single models only, and {KEY} are two",
        ),
    ],
)
def test_a_bad_request_is_refused_before_any_work(running: Running, fields, code, problem):
    name = "attendant_encode_batch_texts_sum"
    before = running.metric(name)
    request = TranslateRequest(**({"texts": [TEXT]} | LANGUAGES | fields))
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() is grpc.StatusCode[code]
    assert problem in failure.details()
    assert running.metric(name) == before


def test_faults_of_the_first_model_are_those_of_their_texts(running: Running):
    texts = [TEXT, "", "ä" * 20_001, TEXTS[1], " "]
    found = translate(running, texts)
    assert best(translate(running, [TEXT, TEXTS[1]])) == [
        found.translations[i].hypotheses[0].text for i in (0, 3)
    ]
    messages = [found.translations[i].error.message for i in (1, 2, 4)]
    assert messages == [
        "texts[1]: is empty, or has nothing that the model can read",
        "texts[2]: at most 20000 characters, got 20001",
        "texts[4]: is empty, or has nothing that the model can read",
    ]
    [fault] = translate(running, [""]).translations
    assert fault.error.message.startswith("texts[0]: is empty")


def test_a_fault_of_the_second_model_says_that_the_caller_has_not_seen_the_text(
    running: Running, loop, settings, options
):
    texts = ["Er schläft.", "Ich friere.", "Sie liest gern.", "Es regnet.", "Hilf mir!"]
    longer = {
        text: translation
        for text, translation in zip(texts, best(english(running, texts)), strict=True)
        if len(translation) > len(text)
    }
    text, middle = next(iter(longer.items()))
    limit = len(text)
    with running_server(loop, settings(**options, max_text_characters=limit)) as limited:
        fault, good = translate(limited, [text, "Nein."]).translations
        stream = limited.translation.StreamTranslate
        request = StreamTranslateRequest(text=text, **LANGUAGES)
        failure = failure_of(lambda: list(stream(request)))
    problem = f"as translated by de-en/1: at most {limit} characters, got {len(middle)}"
    assert fault.error.message == f"texts[0]: {problem}"
    assert failure.details() == f"text: {problem}"
    assert good.hypotheses


def test_sentences_have_their_places_in_the_text_and_in_the_final_translation(running: Running):
    text = f"  {TEXTS[2]}\n123\n{TEXT}  "
    [translation] = translate(running, [text], return_sentences=True).translations
    [hypothesis] = translation.hypotheses
    sources = [text[each.source_start : each.source_end] for each in hypothesis.sentences]
    targets = [
        hypothesis.text[each.target_start : each.target_end] for each in hypothesis.sentences
    ]
    assert sources == [
        "Ich möchte ein Buch lesen.",
        "Das Wetter ist heute sehr schön.",
        "Wir gehen nach Hause!",
        TEXT,
    ]
    alone = best(translate(running, sources))
    assert targets == alone
    assert hypothesis.text == f"  {alone[0]}\n\n{alone[1]} {alone[2]}\n123\n{alone[3]}  "


def test_words_are_linked_over_the_pivot_language(running: Running):
    text = "Der Hund schläft. Ich möchte ein Buch 😀 lesen."
    [translation] = translate(running, [text], return_alignments=True).translations
    [hypothesis] = translation.hypotheses
    found = {
        (
            text[link.source_start : link.source_end],
            hypothesis.text[link.target_start : link.target_end],
        )
        for link in hypothesis.alignments
    }
    assert {("Hund", "chien"), ("Buch", "livre"), ("😀", "😀")} <= found
    assert all(0 < link.weight <= 1 for link in hypothesis.alignments)
    fields: dict[str, Any] = {"return_alignments": True, "offset_unit": OFFSET_UNIT_UTF8_BYTES}
    [in_bytes] = translate(running, [text], **fields).translations
    source, target = text.encode(), in_bytes.hypotheses[0].text.encode()
    assert found == {
        (
            source[link.source_start : link.source_end].decode(),
            target[link.target_start : link.target_end].decode(),
        )
        for link in in_bytes.hypotheses[0].alignments
    }


@pytest.mark.parametrize("unit", [OFFSET_UNIT_CODE_POINTS, OFFSET_UNIT_UTF8_BYTES])
def test_places_in_unusual_texts_are_inside_and_in_order(running: Running, unit: Any):
    texts = [*ODD.values(), " ".join([*ODD.values(), *TEXTS]), "\n".join(TEXTS * 3)]
    fields: dict[str, Any] = {"return_sentences": True, "return_alignments": True}
    found = translate(running, texts, offset_unit=unit, **fields)
    for text, translation in zip(texts, found.translations, strict=True):
        assert translation.HasField("error") != bool(translation.hypotheses)
        for hypothesis in translation.hypotheses:
            source_size, target_size = (
                len(each if unit == OFFSET_UNIT_CODE_POINTS else each.encode())
                for each in (text, hypothesis.text)
            )
            source_end = target_end = 0
            for sentence in hypothesis.sentences:
                assert source_end <= sentence.source_start <= sentence.source_end <= source_size
                assert target_end <= sentence.target_start <= sentence.target_end <= target_size
                source_end, target_end = sentence.source_end, sentence.target_end
            for link in hypothesis.alignments:
                assert link.source_start < link.source_end <= source_size
                assert link.target_start < link.target_end <= target_size
                assert LEAST_WEIGHT <= link.weight <= 1


def test_markup_is_put_around_the_words_of_both_translations(running: Running):
    text = "<p>Der <b>Hund</b> sieht mich.</p><code>x</code><p>Ich lese ein <i>Buch</i>.</p>"
    [found] = best(translate(running, [text], markup=MARKUP_HTML))
    middle = english(running, [text], markup=MARKUP_HTML)
    fields = {"source_language": "en", "target_language": "fr"}
    assert [found] == best(translate(running, best(middle), markup=MARKUP_HTML, **fields))
    assert "<b>chien</b>" in found
    assert "<i>livre</i>" in found
    assert "<code>x</code>" in found


def test_options_about_tokens_and_lengths_are_those_of_the_answer(running: Running):
    options = TranslateOptions(max_output_tokens=3, return_tokens=True)
    long = "Ich möchte heute ein sehr langes Buch über alte Häuser lesen."
    [cut] = translate(running, [long], options=options).translations[0].hypotheses
    assert len(cut.tokens) == 3
    assert cut.finish_reason == FINISH_REASON_LENGTH
    assert best(translate(running, [long]))[0].startswith(cut.text)
    prefixed = best(translate(running, [TEXT, TEXT], target_prefixes=["Dites-moi", ""]))
    assert prefixed[0].startswith("Dites-moi")
    assert prefixed[1] == best(translate(running, [TEXT]))[0]
    forbidden = TranslateOptions(suppressed_texts=["gare"])
    assert "gare" not in best(translate(running, [TEXT], options=forbidden))[0]
    bad = translate(running, ["", TEXT], target_prefixes=["", "犬"]).translations
    assert bad[0].error.message.startswith("texts[0]: ")
    assert bad[1].error.message.startswith("target_prefixes[1]: ")


def test_samples_are_drawn_by_the_second_model_for_the_place_of_their_text(running: Running):
    sampling = Sampling(seed=7)
    options = TranslateOptions(sampling=sampling, num_hypotheses=3)
    found = translate(running, ["", TEXT], options=options)
    assert found.seed == 7
    sampling.first_index = 1
    options.sampling.CopyFrom(sampling)
    [alone] = translate(running, [TEXT], options=options).translations
    assert [each.text for each in alone.hypotheses] == [
        each.text for each in found.translations[1].hypotheses
    ]
    assert len({each.text for each in alone.hypotheses}) > 1


def test_alternatives_are_those_of_the_second_model(running: Running):
    options = TranslateOptions(return_alternatives=True, num_hypotheses=3)
    [found] = translate(running, [TEXT], options=options, splitting=SPLITTING_NONE).translations
    assert len({each.text.split()[0] for each in found.hypotheses}) == 3


def test_a_score_needs_a_single_model(running: Running):
    request = ScoreRequest(pairs=[TranslationPair(source=TEXT, target="Où ?")], **LANGUAGES)
    failure = failure_of(running.translation.Score, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == (
        f"target_language: is reached over two models, {KEY}, and only a single one can score"
    )


def test_calls_of_all_kinds_share_the_models(running: Running):
    requests: list[Any] = [(LANGUAGES, TEXTS), ({"target_language": "en"}, TEXTS)] * 6
    requests += [({"source_language": "en"}, ["The dog sees the king."])] * 6

    def ask(request: tuple[dict[str, Any], list[str]]) -> list[str]:
        languages, texts = request
        return best(running.translation.Translate(TranslateRequest(texts=texts, **languages)))

    alone = [ask(request) for request in requests]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, requests)) == alone


def test_a_call_counts_for_both_models_and_its_texts_once(running: Running):
    def figures() -> list[float]:
        return [
            running.metric("attendant_calls_total", model=model, method="Translate", code="OK")
            for model in ("de-en/1", "en-fr/1")
        ]

    before = figures()
    texts = running.metric("attendant_caller_texts_total", caller="anonymous")
    tokens = running.metric("attendant_caller_tokens_total", caller="anonymous")
    found = translate(running, TEXTS)
    assert figures() == [count + 1 for count in before]
    after = running.metric("attendant_caller_texts_total", caller="anonymous")
    assert after == texts + len(TEXTS)
    read = running.metric("attendant_caller_tokens_total", caller="anonymous") - tokens
    assert read == found.token_counts.num_input_tokens


def test_a_text_of_a_bulk_call_counts_for_both_models(running: Running):
    def figures() -> list[float]:
        method = {"method": "BulkTranslate"}
        return [
            running.metric(name, model=model, **labels)
            for model in ("de-en/1", "en-fr/1")
            for name, labels in (
                ("attendant_decode_seconds_count", method),
                ("attendant_invalid_texts_total", {}),
            )
        ]

    before = figures()
    texts = [("1", TEXT), ("2", " "), ("3", TEXT)]
    requests = translate_requests(texts, **LANGUAGES)
    found = list(each_result(running.translation.BulkTranslate(requests)))
    assert [each.result.HasField("error") for each in found] == [False, True, False]
    assert [after - old for after, old in zip(figures(), before, strict=True)] == [2, 1, 2, 1]


def test_the_deadline_of_a_call_is_one_for_both_models(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    left: list[float] = []
    ask = MarkupTranslator.translate

    async def noted(self: Any, request: Any, markup: int, seconds_left: Any) -> Any:
        left.append(seconds_left)
        return await ask(self, request, markup, seconds_left)

    monkeypatch.setattr(MarkupTranslator, "translate", noted)
    running.translation.Translate(TranslateRequest(texts=TEXTS, **LANGUAGES), timeout=20)
    translate(running, TEXTS)
    (first, second), (first_without, second_without) = left[:2], left[2:]
    assert second < first < 25  # gRPC adds some time of its own
    assert second_without < first_without <= running.server._settings.max_request_seconds


def test_the_lists_of_models_have_no_routes(running: Running):
    listed = running.models.ListModels(ListModelsRequest()).models
    assert [model.name for model in listed] == ["de-en", "en-fr"]


def test_the_clients_and_the_command_translate_over_a_pivot_language(running: Running, capsys):
    with Client(running.server.address) as client:
        found = client.translate(TEXTS * 100, source_language="de", target_language="fr")
        assert [each.text for each in found] == best(translate(running, TEXTS)) * 100
        assert found[0].call.model == KEY
    target = ["--target", running.server.address, "--from", "de", "--to", "fr"]
    assert main(["translate", *target, TEXT]) == 0
    assert capsys.readouterr().out == "Où est la gare ?\n"
