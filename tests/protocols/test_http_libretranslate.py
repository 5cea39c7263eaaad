"""LibreTranslate's protocol over HTTP beside the own protocol of a real server."""

import pytest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest

TEXTS = ["The dog sees the king. The old cat.", "The old cat."]
GERMAN = "Wo ist der Bahnhof, und wann fährt der nächste Zug nach Hause?"


def best(running, **options):
    request = TranslateRequest(model="tiny-en-de", texts=TEXTS, options=TranslateOptions(**options))
    found = running.translation.Translate(request).translations
    return [[hypothesis.text for hypothesis in each.hypotheses] for each in found]


def asked(texts=TEXTS, **fields):
    return {"q": texts, "source": "en", "target": "de"} | fields


def test_translations_are_those_of_translate_from_json_and_from_a_form(running, http):
    own = [text for [text] in best(running)]
    for answer in (
        http.post("/translate", asked()),
        http.post_form("/translate", asked()),
    ):
        assert answer.json == {"translatedText": own}
    assert http.post_form("/translate", asked(TEXTS[0])).json == {"translatedText": own[0]}


def test_alternatives_are_the_further_hypotheses_of_a_search(running, http):
    own = best(running, beam_size=4, num_hypotheses=3)
    answer = http.post("/translate", asked(alternatives=2)).json
    assert answer["translatedText"] == [each[0] for each in own]
    assert answer["alternatives"] == [each[1:] for each in own]
    one = http.post_form("/translate", asked(TEXTS[0], alternatives="2")).json
    assert one["alternatives"] == own[0][1:]


def test_a_detected_language_is_told_and_a_text_in_the_target_language_stays(running, http):
    own = [text for [text] in best(running)]
    texts = [TEXTS[0], GERMAN, "1234", TEXTS[1]]
    answer = http.post("/translate", asked(texts, source="auto")).json
    found = answer["translatedText"]
    assert [found[0], found[1], found[3]] == [own[0], GERMAN, own[1]]
    detected = answer["detectedLanguage"]
    assert [each["language"] for each in detected] == ["en", "de", "en", "en"]
    assert detected[2]["confidence"] == 0
    assert detected[0]["confidence"] > 50
    for target in ("de", "de-AT"):
        one = http.post("/translate", asked([GERMAN, TEXTS[1]], source="auto", target=target)).json
        assert one["translatedText"] == [GERMAN, own[1]]
        assert [each["language"] for each in one["detectedLanguage"]] == [target, "en"]


def test_languages_and_settings_are_shown_and_languages_are_detected(http):
    assert http.get("/languages").json == [{"code": "en", "name": "en", "targets": ["de"]}]
    assert http.get("/frontend/settings").json["charLimit"] == 20_000
    found = http.post_form("/detect", {"q": GERMAN}).json
    assert found[0]["language"] == "de"
    assert http.post("/detect", {"q": "12"}).json == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"q": "a", "source": "en"}, 400, "body: object missing required field target"),
        (asked(5), 400, "q: expected str | array, got int"),
        (asked([]), 400, "q: expected array of length >= 1"),
        (asked([TEXTS[0], "a" * 20_001]), 400, "q[1]: at most 20000 characters"),
        (asked(["a"] * 257), 400, "q: at most 256, got 257"),
        (asked("a", source="fr"), 404, "model: no translation model for source_language fr"),
        (asked("a", target="not a tag"), 400, "target: "),
        (asked("a", source="auto", target="xx"), 400, "target: must be one of de, not 'xx'"),
        (asked("a", source="auto", target="x\ny"), 400, "target: must be a language tag"),
        (asked("a", source="auto", target="a secret"), 400, "target: must be a language tag"),
        (asked("a", alternatives=8), 400, "alternatives: at most 7, got 8"),
        (asked("a", alternatives=-1), 400, "alternatives: expected int >= 0"),
        (asked("a", format="pdf"), 400, "format: has an unknown value or field"),
        (asked("<b>a</b>", format="html"), 400, "markup: tiny-en-de/1 has no aligner"),
    ],
)  # fmt: skip
def test_bad_requests_name_the_field_and_the_limit(http, body, status, message):
    answer = http.post("/translate", body)
    assert answer.status == status
    assert answer.json["error"].startswith(message)


def test_unknown_fields_and_other_types_of_content(http):
    assert http.post("/translate", asked("a", unknown=1)).status == 200
    answer = http.post("/translate", b"q=a", content_type="text/plain")
    assert (answer.status, list(answer.json)) == (415, ["error"])
    assert http.post_form("/translate", [("q", "a")] * 1025).status == 400
    answer = http.post_form("/translate", {"q": "a" * 262_144})
    assert (answer.status, answer.json["error"][:33]) == (413, "body: a form has at most 262144 b")
    answer = http.post("/translate", asked("a"), content_encoding="gzip")
    assert (answer.status, answer.json["error"]) == (415, "content-encoding: must be identity")
