"""Languages of texts, through the real library, server and clients."""

import json
import re

import grpc
import pytest
from attendant.v1 import language_pb2_grpc
from attendant.v1.language_pb2 import DetectLanguageRequest
from attendant_client import Client, InvalidRequestError, UnsupportedError
from attendant_client.__main__ import main
from attendant_client.errors import LANGUAGE_UNKNOWN
from attendant_server import app
from attendant_server.application.tokenization import MAX_JOB_CHARACTERS
from attendant_server.language_identifier import LanguageIdentifier
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.serving import failure_of

TEXTS = {
    "de": "Wo ist der nächste Bahnhof, und wann fährt der letzte Zug?",
    "en": "Where is the nearest train station, and when does the last train leave?",
    "fr": "Où est la gare la plus proche, et quand part le dernier train ?",
    "ja": "一番近い駅はどこですか。",
}
LANGUAGE_SERVICE = "attendant.v1.LanguageService"


@pytest.fixture(scope="module")
def client(running):
    with Client(running.server.address) as client:
        yield client


@pytest.fixture(scope="module")
def stub(running):
    return language_pb2_grpc.LanguageServiceStub(running.channel)


def test_texts_have_their_languages_in_their_order(client):
    found = client.detect_language(list(TEXTS.values()))
    assert [each.language for each in found] == list(TEXTS)
    assert all(len(each.languages) == 1 for each in found)
    assert all(each.languages[0].probability > 0.5 for each in found)


def test_languages_come_best_first_with_probabilities_that_add_up_to_1(client):
    found = client.detect_language(TEXTS["en"], languages=["de", "en", "fr"], max_results=9)
    probabilities = [each.probability for each in found.languages]
    assert {each.language for each in found.languages} == {"de", "en", "fr"}
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    everywhere = client.detect_language(TEXTS["en"], max_results=9)
    assert everywhere.languages[0].probability < probabilities[0]


def test_a_language_of_another_region_means_the_language(client):
    found = client.detect_language(TEXTS["de"], languages=["en", "de-AT", "DE-ch"], max_results=3)
    assert [each.language for each in found.languages] == ["de", "en"]


def test_an_unlikely_language_that_is_the_only_one_is_certain(client):
    found = client.detect_language(TEXTS["ja"] * 200, languages=["de"])
    assert [(each.language, each.probability) for each in found.languages] == [("de", 1.0)]


@pytest.mark.parametrize("text", ["", " \n", "1234 + 5", "?!", "👍", "OK"])
def test_a_text_without_letters_or_traits_has_no_language(client, text):
    assert client.detect_language(text, max_results=3).languages == ()
    assert client.detect_language(text, languages=["de", "en"]).language == ""


def test_a_text_that_is_too_long_fails_alone(client):
    first, too_long, last = client.detect_language([TEXTS["de"], "ä" * 20_001, TEXTS["fr"]])
    assert (first.language, last.language) == ("de", "fr")
    assert too_long.error.message == "at most 20000 characters, got 20001"
    assert too_long.languages == ()


def test_a_call_of_several_jobs_gives_what_its_texts_give_alone(client):
    long = {tag: f"{text} " * 100 for tag, text in TEXTS.items()}
    assert sum(map(len, long.values())) > MAX_JOB_CHARACTERS
    together = client.detect_language(list(long.values()), max_results=5)
    assert together == [client.detect_language(text, max_results=5) for text in long.values()]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"texts": []}, "texts: at least 1, got 0"),
        ({"max_results": 0}, "max_results: at least 1, got 0"),
        ({"languages": ["de", ""]}, r"languages\[1\]: must be a language tag such as de or pt-BR"),
        ({"languages": ["de", "xx"]}, r"languages\[1\]: must be one of ace, af, .*, not 'xx'"),
        ({"languages": ["de"] * 257}, "languages: at most 256, got 257"),
    ],
)
def test_a_bad_request_is_refused_with_its_field(stub, fields, problem):
    failure = failure_of(stub.DetectLanguage, DetectLanguageRequest(**{"texts": ["a"]} | fields))
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert re.fullmatch(problem, failure.details())


def test_a_language_that_the_library_lacks_has_a_reason_for_programs(client):
    with pytest.raises(InvalidRequestError) as failure:
        client.detect_language("a", languages=["de", "xx"])
    assert failure.value.reason == LANGUAGE_UNKNOWN
    assert failure.value.reason_details == {"languages[1]": "xx"}


def test_a_call_counts_like_those_of_other_methods(running, client):
    name = "grpc_server_handled_total"
    labels = {"grpc_method": "DetectLanguage", "grpc_code": "OK"}
    before = running.metric(name, **labels)
    client.detect_language(list(TEXTS.values()))
    assert running.metric(name, **labels) == before + 1


def test_the_model_of_the_library_is_loaded_once_and_again_after_a_fault(start, monkeypatch):
    loads = list[None]()

    def load():
        loads.append(None)
        if len(loads) == 1:
            raise OSError("no space left")
        return LanguageIdentifier()

    monkeypatch.setattr(app, "LanguageIdentifier", load)
    with Client(start().server.address) as client:
        with pytest.raises(Exception, match="internal error"):
            client.detect_language(TEXTS["de"])
        assert [client.detect_language(TEXTS["de"]).language for _ in range(2)] == ["de", "de"]
    assert len(loads) == 2


def test_a_server_without_the_library_names_the_extra_and_serves_all_else(start, monkeypatch):
    monkeypatch.setattr(app, "is_installed", lambda: False)
    running = start()
    with Client(running.server.address) as client:
        with pytest.raises(UnsupportedError, match=r"attendant-server\[detection\]") as caught:
            client.detect_language(TEXTS["de"])
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
        assert client.health() == "serving"
        assert client.health(LANGUAGE_SERVICE) == "not_serving"


def test_the_health_of_the_service_is_that_of_the_server(running):
    request = HealthCheckRequest(service=LANGUAGE_SERVICE)
    assert running.health.Check(request).status == HealthCheckResponse.SERVING


def test_the_command_prints_languages(running, capsys):
    target = ["--target", running.server.address]
    assert main(["detect", *target, TEXTS["de"], TEXTS["fr"], "--languages", "de,fr"]) == 0
    assert capsys.readouterr().out.split()[1::2] == ["de", "fr"]
    assert main(["detect", *target, "--json", TEXTS["de"]]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["languages"][0]["language"] == "de"
    assert shown["error"] is None


def test_a_large_answer_is_refused(start):
    running = start(max_response_bytes=1024)
    stub = language_pb2_grpc.LanguageServiceStub(running.channel)
    failure = failure_of(
        stub.DetectLanguage, DetectLanguageRequest(texts=["a"] * 50, max_results=1)
    )
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the answer could take 1200 bytes" in failure.details()
