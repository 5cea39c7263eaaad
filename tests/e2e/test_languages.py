"""Requests that name languages: the choice of the model, and tokens that select a language."""

from typing import Any

import grpc
import pytest
from attendant.v1.model_pb2 import ListModelsRequest, TokenizeRequest
from attendant.v1.text_pb2 import TRUNCATION_LEFT
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_client import Client, InvalidRequestError, NotFoundError
from attendant_client.errors import LANGUAGE_UNKNOWN
from tokenizers import Tokenizer

from tests.support.altered import with_manifest
from tests.support.serving import failure_of, running_server

TEXT = "The dog sees the king."
EN, NL, DE, AT = 20, 21, 30, 31
"""Token ids that stand for languages in these tests."""


def add_languages(manifest: dict[str, Any]) -> None:
    manifest["source_languages"] = [
        {"tag": "en", "source_prefix_ids": [EN]},
        {"tag": "nl", "source_prefix_ids": [NL], "source_suffix_ids": [NL, NL]},
    ]
    manifest["target_languages"] = [
        {"tag": "de", "forced_target_ids": [DE]},
        {"tag": "de-AT", "source_prefix_ids": [AT], "forced_target_ids": [AT, DE]},
        {"tag": "zh-Hant", "forced_target_ids": [DE, DE, DE]},
    ]


@pytest.fixture(scope="module")
def server(loop, settings, translation_bundle, tmp_path_factory):
    root = with_manifest(translation_bundle, tmp_path_factory.mktemp("languages"), add_languages)
    with running_server(loop, settings(bundles=root)) as running:
        yield running


def translated(server, source, target, **options):
    request = TranslateRequest(
        texts=[TEXT],
        source_language=source,
        target_language=target,
        options=TranslateOptions(return_tokens=True, repetition_guard=False, **options),
    )
    [translation] = server.translation.Translate(request).translations
    return translation


def num_text_tokens(server):
    [result] = server.models.Tokenize(TokenizeRequest(texts=[TEXT])).results
    return len(result.tokens)


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize(
    ("source", "target", "num_added", "forced"),
    [
        ("en", "de", 1, [DE]),
        ("nl", "de", 3, [DE]),
        ("en", "de-AT", 2, [AT, DE]),
        ("EN-us", "de-at-x-vienna", 2, [AT, DE]),
        ("en", "de-CH", 1, [DE]),
        ("en", "zh-Hant-TW", 1, [DE, DE, DE]),
    ],
)
def test_a_translation_begins_with_the_tokens_of_its_language_and_scores_what_decoding_gave_it(
    server, translation_bundle, beam_size, source, target, num_added, forced
):
    found = translated(server, source, target, beam_size=beam_size)
    assert found.num_source_tokens == num_text_tokens(server) + num_added
    [hypothesis] = found.hypotheses
    assert [token.id for token in hypothesis.tokens[: len(forced)]] == forced
    assert not any(token.log_probability for token in hypothesis.tokens[: len(forced)])
    tokens = Tokenizer.from_file(str(translation_bundle / "tokenizer.json"))
    # The tokens of languages are words in this tokenizer, and special ones in real models.
    text = tokens.decode([token.id for token in hypothesis.tokens][len(forced) :])
    request = ScoreRequest(
        return_tokens=True,
        pairs=[TranslationPair(source=TEXT, target=text)],
        source_language=source,
        target_language=target,
    )
    [scored] = server.translation.Score(request).scores
    assert scored.num_source_tokens == found.num_source_tokens
    assert [token.id for token in scored.tokens] == [token.id for token in hypothesis.tokens]
    assert [token.text for token in scored.tokens] == [t.text for t in hypothesis.tokens]
    assert scored.log_probabilities == pytest.approx(
        [token.log_probability for token in hypothesis.tokens], abs=1e-4
    )
    assert scored.score == pytest.approx(hypothesis.score, abs=1e-4)


def test_languages_change_translations_and_streams_alike(server):
    texts = set()
    for source, target in (("en", "de"), ("nl", "de"), ("en", "de-AT")):
        request = StreamTranslateRequest(
            text=TEXT,
            source_language=source,
            target_language=target,
            options=TranslateOptions(return_tokens=True, repetition_guard=False),
        )
        *_, last = server.translation.StreamTranslate(request)
        assert last.translation == translated(server, source, target)
        texts.add(last.translation.hypotheses[0].text)
    assert len(texts) > 1


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("", "de", "source_language: must name one of en, nl for tiny-en-de/1"),
        ("en", "", "target_language: must name one of de, de-AT, zh-Hant for tiny-en-de/1"),
        ("e" * 101, "", "source_language: at most 100 characters"),
    ],
)
def test_a_language_that_the_model_has_to_know_is_required(server, source, target, problem):
    request = TranslateRequest(texts=[TEXT], source_language=source, target_language=target)
    error = failure_of(server.translation.Translate, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == problem


@pytest.mark.parametrize("tag", ["fr", "d", "zh", "zh-Hans", "de_AT"])
def test_a_language_that_the_named_model_lacks_is_refused(server, tag):
    request = TranslateRequest(
        texts=[TEXT], model="tiny-en-de", source_language="en", target_language=tag
    )
    error = failure_of(server.translation.Translate, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    has = "target_language: tiny-en-de/1 has de, de-AT, zh-Hant"
    assert error.details() == f"{has}, not {tag!r}"


@pytest.mark.parametrize(
    ("source", "target", "reason", "details"),
    [
        ("fr", "de", LANGUAGE_UNKNOWN, {"source_language": "fr"}),
        ("en", "fr", LANGUAGE_UNKNOWN, {"target_language": "fr"}),
        ("en", "", "", {}),
        ("e" * 101, "de", "", {}),
    ],
)
def test_a_language_that_the_model_lacks_has_a_reason_for_programs(
    server, source, target, reason, details
):
    options = {"model": "tiny-en-de", "source_language": source, "target_language": target}
    with Client(f"127.0.0.1:{server.server.port}") as client:
        calls = [
            lambda: client.translate(TEXT, **options),
            lambda: list(client.stream_translate(TEXT, **options)),
            lambda: list(client.bulk_translate([TEXT], **options)),
            lambda: client.score([(TEXT, TEXT)], **options),
        ]
        for call in calls:
            with pytest.raises(InvalidRequestError) as failure:
                call()
            assert (failure.value.reason, failure.value.reason_details) == (reason, details)


def test_tokens_of_languages_are_never_truncated(server):
    request = TranslateRequest(
        texts=["dog " * 100],
        source_language="nl",
        target_language="de",
        truncation=TRUNCATION_LEFT,
        options=TranslateOptions(return_tokens=True, max_output_tokens=4),
    )
    [translation] = server.translation.Translate(request).translations
    assert translation.num_source_tokens == translation.truncation.num_kept_tokens == 64
    assert translation.truncation.num_original_tokens > 103
    assert len(translation.hypotheses[0].tokens) == 4


def test_models_list_their_languages(server):
    [model] = server.models.ListModels(ListModelsRequest()).models
    assert list(model.source_languages) == ["en", "nl"]
    assert list(model.target_languages) == ["de", "de-AT", "zh-Hant"]
    assert (model.source_language, model.target_language) == ("", "")


def test_languages_choose_the_model(start, translation_bundle, tmp_path):
    def to_french(manifest: dict[str, Any]) -> None:
        manifest.update(name="tiny-en-fr", target_languages=[{"tag": "fr"}])

    (tmp_path / "all").mkdir()
    for name, change in (("tiny-en-de", lambda _: None), ("tiny-en-fr", to_french)):
        copy = with_manifest(translation_bundle, tmp_path / name, change) / "tiny-en-de"
        copy.rename(tmp_path / "all" / name)
    running = start(bundles=tmp_path / "all")
    for tag, model in (("de", "tiny-en-de/1"), ("fr-CA", "tiny-en-fr/1")):
        request = TranslateRequest(texts=[TEXT], target_language=tag)
        assert running.translation.Translate(request).model == model
        pairs = [TranslationPair(source=TEXT, target="Der Hund")]
        scored = running.translation.Score(
            ScoreRequest(return_tokens=True, pairs=pairs, target_language=tag)
        )
        assert scored.model == model
    with Client(f"127.0.0.1:{running.server.port}") as client:
        assert client.translate(TEXT, target_language="de").hypotheses
        with pytest.raises(InvalidRequestError, match="model: must name one of tiny-en-de/1, tiny"):
            client.translate(TEXT, source_language="en")
        wanted = "model: no translation model for source_language de, target_language en; there are"
        with pytest.raises(NotFoundError, match=wanted) as failure:
            client.translate(TEXT, source_language="de", target_language="en")
        assert failure.value.reason == LANGUAGE_UNKNOWN
        assert failure.value.reason_details == {"source_language": "de", "target_language": "en"}
