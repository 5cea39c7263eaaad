"""Calls with controls: the order of their tokens, their defaults, and refusals."""

from typing import Any

import grpc
import pytest
from attendant.v1.text_pb2 import TRUNCATION_LEFT
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_client import Client, InvalidRequestError

from tests.support.altered import with_manifest
from tests.support.serving import failure_of, running_server

TEXT = "The dog sees the king."
EN, DE, A, B, C = 20, 21, 30, 31, 32
"""Token ids that stand for languages and controls in these tests."""
MANY = [{"name": f"value{i}", "source_prefix_ids": [A]} for i in range(30)]


def add_controls(manifest: dict[str, Any]) -> None:
    manifest["source_languages"] = [{"tag": "en", "source_prefix_ids": [EN]}]
    manifest["target_languages"] = [{"tag": "de", "source_suffix_ids": [DE]}]
    manifest["controls"] = [
        {
            "name": "formality",
            "values": [
                {"name": "formal", "source_prefix_ids": [A], "source_suffix_ids": [C]},
                {"name": "informal", "source_prefix_ids": [B], "forced_target_ids": [B]},
                {"name": "neutral"},
            ],
            "default_value": "neutral",
        },
        {"name": "domain", "values": [{"name": "law", "source_prefix_ids": [C]}, *MANY]},
    ]


def as_languages(prefix: list[int], suffix: list[int], forced: list[int]):
    """The same model with languages that have all tokens of a call themselves."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["source_languages"] = [{"tag": "en", "source_prefix_ids": prefix}]
        target = {"tag": "de", "source_suffix_ids": suffix, "forced_target_ids": forced}
        manifest["target_languages"] = [target]

    return change


CASES: dict[str, tuple[dict[str, str], tuple[list[int], list[int], list[int]]]] = {
    "none": ({}, ([EN], [DE], [])),
    "the default": ({"formality": "neutral"}, ([EN], [DE], [])),
    "one": ({"formality": "formal"}, ([EN, A], [C, DE], [])),
    "forced": ({"formality": "informal"}, ([EN, B], [DE], [B])),
    "both": ({"domain": "law", "formality": "formal"}, ([EN, A, C], [C, DE], [])),
}


@pytest.fixture(scope="module")
def server(loop, settings, translation_bundle, tmp_path_factory):
    root = with_manifest(translation_bundle, tmp_path_factory.mktemp("controls"), add_controls)
    with running_server(loop, settings(bundles=root)) as running:
        yield running


def answers(server, controls, **fields):
    """The results of all methods for one text."""
    options = TranslateOptions(return_tokens=True, repetition_guard=False, beam_size=2)
    fields = {"options": options, "controls": controls, **fields}
    [whole] = server.translation.Translate(TranslateRequest(texts=[TEXT], **fields)).translations
    *_, last = server.translation.StreamTranslate(StreamTranslateRequest(text=TEXT, **fields))
    request = TranslateRequest(texts=[TEXT], target_prefixes=["Der"], **fields)
    [continued] = server.translation.Translate(request).translations
    pair = TranslationPair(source=TEXT, target=whole.hypotheses[0].text)
    [score] = server.translation.Score(
        ScoreRequest(pairs=[pair], controls=controls, return_tokens=True)
    ).scores
    assert last.translation == whole
    return whole, continued, score


@pytest.mark.parametrize("name", list(CASES))
def test_the_tokens_of_controls_are_between_those_of_the_languages_and_the_text(
    name, server, loop, settings, translation_bundle, tmp_path
):
    controls, tokens = CASES[name]
    root = with_manifest(translation_bundle, tmp_path, as_languages(*tokens))
    with running_server(loop, settings(bundles=root)) as same:
        assert answers(server, controls) == answers(same, {})


def test_translations_with_different_controls_differ(server):
    found = {name: answers(server, controls)[0] for name, (controls, _) in CASES.items()}
    assert found["none"] == found["the default"]
    texts = {each.SerializeToString() for each in found.values()}
    assert len(texts) == len(found) - 1


@pytest.mark.parametrize(
    ("controls", "problem"),
    [
        (
            {"tone": "warm"},
            "controls: has an unknown name; those of tiny-en-de/1 are: formality, domain",
        ),
        ({"": ""}, "controls: has an unknown name; those of tiny-en-de/1 are: formality, domain"),
        (
            {"formality": ""},
            "controls[formality]: is unknown; the values of tiny-en-de/1 are: formal, informal",
        ),
        ({"formality": "polite\n"}, "controls[formality]: is unknown; the values of"),
        ({"x" * 101: ""}, "controls: has an unknown name; those of"),
        ({"domain": "news"}, "value17, value18 and 11 more"),
    ],
)
def test_an_unknown_control_or_value_is_refused_with_those_that_the_model_has(
    controls, problem, server
):
    pair = TranslationPair(source=TEXT, target=TEXT)
    for method, request in (
        ("Translate", TranslateRequest(texts=[TEXT], controls=controls)),
        ("StreamTranslate", StreamTranslateRequest(text=TEXT, controls=controls)),
        ("Score", ScoreRequest(pairs=[pair], controls=controls)),
    ):
        call = getattr(server.translation, method)
        error = failure_of(lambda call=call, request=request: done(call(request)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert problem in error.details()
        for sent in {*(controls.keys() - {"formality", "domain"}), *controls.values()} - {""}:
            assert sent not in error.details()


def done(answer: Any) -> None:
    """Wait for the end of a stream; other answers are complete."""
    if hasattr(answer, "__next__"):
        list(answer)


def test_tokens_of_controls_are_never_truncated(server):
    request = TranslateRequest(
        texts=["dog " * 100],
        truncation=TRUNCATION_LEFT,
        controls={"formality": "formal", "domain": "law"},
        options=TranslateOptions(max_output_tokens=4),
    )
    [translation] = server.translation.Translate(request).translations
    assert translation.num_source_tokens == translation.truncation.num_kept_tokens == 64
    assert translation.truncation.num_original_tokens > 105


def test_the_client_sends_and_lists_controls(server, start, translation_bundle):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        formality, domain = client.model().controls
        assert (formality.values, formality.default_value) == (
            ("formal", "informal", "neutral"),
            "neutral",
        )
        assert domain.default_value == ""
        found = client.translate(TEXT, controls={"formality": "informal"}, return_tokens=True)
        assert found.hypotheses[0].tokens[0].id == B
        [score] = client.score(
            [(TEXT, "Der")], controls={"formality": "informal"}, return_tokens=True
        )
        assert score.tokens[0].id == B
    plain = start(bundles=translation_bundle.parent.parent)
    problem = "controls: has an unknown name; those of tiny-en-de/1 are: none"
    with Client(f"127.0.0.1:{plain.server.port}") as client:
        with pytest.raises(InvalidRequestError, match=problem):
            client.translate(TEXT, controls={"tone": "warm"})
        assert client.model().controls == ()
