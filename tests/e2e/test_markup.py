"""Texts with markup are translated, and their markup stays."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from attendant.v1.text_pb2 import MARKUP_HTML, MARKUP_XML
from attendant.v1.translation_pb2 import (
    Sampling,
    TranslateOptions,
    TranslateRequest,
    Translation,
)

from tests.support.application import TINY_BUNDLES
from tests.support.serving import Running, failure_of, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
PAGE = (
    '<html><body class="a">\n<h1>The <i>house</i> is old.</h1>\n'
    '<p>The <b>black dog</b> sees the <a href="c">cat</a>. Where is <b>the station</b>?</p>\n'
    "<!-- not this --><script>if (a < b) alert('no')</script>\n"
    "<ul><li>Please close <code>a &lt; b</code> the window.</li><li></li></ul></body></html>\n"
)


@pytest.fixture(scope="module")
def running(loop, settings) -> Iterator[Running]:
    options = {"bundles": BUILT_IN, "models": ("en-de",), "precision": "auto"}
    with running_server(loop, settings(**options)) as server:
        yield server


def translated(running: Running, *texts: str, markup: Any = MARKUP_HTML, **fields: Any) -> Any:
    request = TranslateRequest(texts=texts, markup=markup, **fields)
    return running.translation.Translate(request).translations


def best(running: Running, text: str, **fields: Any) -> str:
    [translation] = translated(running, text, **fields)
    return translation.hypotheses[0].text


def test_a_page_keeps_its_markup_and_its_words_are_translated(running: Running):
    found = best(running, PAGE)
    tags = re.compile(r"<[^>]*>")
    assert sorted(tags.findall(found)) == sorted(tags.findall(PAGE))
    assert "<h1>Das <i>Haus</i> ist alt.</h1>" in found
    assert '<p>Der <b>schwarze Hund</b> sieht die <a href="c">Katze</a>.' in found
    assert "<b>der Bahnhof</b>" in found
    assert "<!-- not this --><script>if (a < b) alert('no')</script>" in found
    assert "<code>a &lt; b</code>" in found
    assert found.startswith('<html><body class="a">\n<h1>')


def test_elements_of_xml_keep_their_names_and_order_of_attributes(running: Running):
    text = '<doc Id="1"><Par>The <Name b="2" a="1">dog</Name> sees the cat.</Par><Empty/></doc>'
    found = best(running, text, markup=MARKUP_XML)
    assert '<Name b="2" a="1">Hund</Name>' in found
    assert found.startswith('<doc Id="1"><Par>')
    assert found.endswith("</Par><Empty/></doc>")


@pytest.mark.parametrize("text", ["", "<p></p>", "<hr>", "<b>  </b>", "&nbsp;", "<!-- a -->"])
def test_texts_of_markup_alone_stay_as_they_are(running: Running, text: str):
    [translation] = translated(running, text)
    assert [hypothesis.text for hypothesis in translation.hypotheses] == [text]


def test_every_hypothesis_has_the_markup(running: Running):
    options = TranslateOptions(beam_size=4, num_hypotheses=3, return_tokens=True)
    [translation] = translated(running, "<b>The dog</b> sees me.<br>Yes.", options=options)
    assert len(translation.hypotheses) == 3
    for hypothesis in translation.hypotheses:
        assert re.findall("<[^>]*>", hypothesis.text) == ["<b>", "</b>", "<br>"]
        assert hypothesis.tokens
        assert hypothesis.score < 0


def test_a_score_is_that_of_the_tokens_of_all_segments(running: Running):
    options = TranslateOptions(return_tokens=True, length_penalty=1.0)
    [translation] = translated(running, "<p>The dog.</p><p>The cat sleeps.</p>", options=options)
    [hypothesis] = translation.hypotheses
    values = [token.log_probability for token in hypothesis.tokens]
    assert hypothesis.score == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_a_text_that_is_too_long_fails_alone(running: Running):
    limit = 100_000
    texts = ["<p>The dog.</p>", "<p>" + "a " * limit + "</p>", "<b>The cat.</b>"]
    first, failed, last = translated(running, *texts)
    assert "texts[1]: at most" in failed.error.message
    for translation, text in ((first, texts[0]), (last, texts[2])):
        assert translation.hypotheses[0].text == best(running, text)


def test_pages_may_have_more_blocks_than_the_queue_has_places(running: Running):
    text = "<ul>" + "<li>Yes.</li>\n" * 1250 + "</ul>"
    expected = text.replace("Yes.", best(running, "Yes."))
    found = translated(running, text, text)
    assert [translation.hypotheses[0].text for translation in found] == [expected] * 2


def test_texts_with_markup_do_not_depend_on_each_other(running: Running):
    texts = [PAGE, "<hr>", "<b>The dog</b> sees me.", "The cat sleeps."]
    for text, found in zip(texts, translated(running, *texts), strict=True):
        assert found.hypotheses[0].text == best(running, text)


@pytest.mark.parametrize(
    "fields",
    [{"return_sentences": True}, {"return_alignments": True}, {"target_prefixes": ["a"]}],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_about_places_are_refused(running: Running, fields: dict[str, Any]):
    request = TranslateRequest(texts=["<b>a</b>"], markup=MARKUP_HTML, **fields)
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == f"{next(iter(fields))}: is for texts without markup only"


def test_alternatives_are_refused(running: Running):
    options = TranslateOptions(return_alternatives=True)
    request = TranslateRequest(texts=["<b>a</b>"], markup=MARKUP_HTML, options=options)
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("options.return_alternatives: is for texts without markup")


def test_an_unknown_markup_and_a_call_without_texts_are_refused(running: Running):
    for request, field in (
        (TranslateRequest(texts=["a"], markup=cast(Any, 9)), "markup"),
        (TranslateRequest(markup=MARKUP_HTML), "texts"),
    ):
        failure = failure_of(running.translation.Translate, request)
        assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert failure.details().startswith(f"{field}: ")


def test_a_model_without_an_aligner_has_no_markup(start):
    server = start(bundles=TINY_BUNDLES, models=("tiny-en-de",))
    request = TranslateRequest(texts=["<b>a</b>"], markup=MARKUP_HTML)
    failure = failure_of(server.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "has no aligner" in failure.details()


def test_a_translation_without_markup_is_that_of_before(running: Running):
    text = "The <b>dog</b> sees me."
    found: Translation = translated(running, text, markup=0)[0]
    assert found.hypotheses[0].text != best(running, text)


def test_samples_do_not_depend_on_the_segments_of_other_texts(running: Running):
    def samples(first: int, *texts: str) -> list[str]:
        sampling = Sampling(seed=3, temperature=2, first_index=first)
        options = TranslateOptions(sampling=sampling)
        return [each.hypotheses[0].text for each in translated(running, *texts, options=options)]

    texts = PAGE, "<p>The dog.</p><p>The cat.</p>", "<p>The dog.</p>"
    together = samples(0, *texts)
    assert [samples(place, text)[0] for place, text in enumerate(texts)] == together
