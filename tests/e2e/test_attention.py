"""Attention weights of served models: their form, their tokens, and bad requests."""

import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1.attention_pb2 import (
    AttentionWeights,
    GetAttentionRequest,
    GetAttentionResponse,
)
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import OFFSET_UNIT_UTF8_BYTES, SPLITTING_NONE, Token
from attendant.v1.translation_pb2 import ScoreRequest, TranslateRequest, TranslationPair
from attendant_client.__main__ import main

from tests.support.application import TINY_BUNDLES
from tests.support.serving import Running, failure_of, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
TEXT = "The black dog does not want to see the cat."
GERMAN = "Der schwarze Hund will die Katze nicht sehen."


@pytest.fixture(scope="module")
def running(loop, settings) -> Iterator[Running]:
    options = {"bundles": BUILT_IN, "models": ("en-de", "bert-en-de"), "precision": "auto"}
    with running_server(loop, settings(**options)) as server:
        yield server


def attention(running: Running, text: str = TEXT, **fields: Any) -> GetAttentionResponse:
    return running.models.GetAttention(GetAttentionRequest(text=text, **fields))


def array(kind: AttentionWeights) -> np.ndarray:
    """The weights (layers, heads, queries, keys)."""
    return np.frombuffer(kind.weights.data, "<f4").reshape(tuple(kind.weights.shape))


def places(text: str, tokens: Iterable[Token]) -> list[str]:
    return [text[token.start : token.end] for token in tokens if not token.special]


def test_weights_are_between_the_tokens_and_add_up_to_1(running: Running):
    found = attention(running, model="en-de")
    source, target = len(found.source_tokens), len(found.target_tokens)
    for kind, layers, shape in (
        (found.encoder, 6, (source, source)),
        (found.decoder, 2, (target, target)),
        (found.cross, 2, (target, source)),
    ):
        weights = array(kind)
        assert weights.shape == (layers, 8, *shape)
        assert list(kind.num_heads) == [8] * layers
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)
        assert (weights >= 0).all()


def test_target_tokens_do_not_attend_to_later_ones(running: Running):
    weights = array(attention(running, model="en-de").decoder)
    assert not np.triu(weights, 1).any()
    assert (weights[..., 0, 0] == 1).all()


def test_the_target_is_by_default_the_translation_of_the_model(running: Running):
    found = attention(running, model="en-de")
    request = TranslateRequest(model="en-de", texts=[TEXT], splitting=SPLITTING_NONE)
    request.options.return_tokens = True
    [hypothesis] = running.translation.Translate(request).translations[0].hypotheses
    assert found.target == hypothesis.text
    assert [t.id for t in found.target_tokens] == [t.id for t in hypothesis.tokens]
    assert found.token_counts.num_input_tokens == len(found.source_tokens) + len(
        found.target_tokens
    )


def test_tokens_have_their_places_and_the_decoder_reads_the_start_token_first(running: Running):
    found = attention(running, model="en-de")
    assert "".join(places(TEXT, found.source_tokens)).replace(" ", "") == TEXT.replace(" ", "")
    written = "".join(places(found.target, found.target_tokens))
    assert written.replace(" ", "") == found.target.replace(" ", "")
    assert list(found.decoder_tokens[1:]) == list(found.target_tokens[:-1])
    assert found.decoder_tokens[0].special


def test_a_given_target_is_studied_instead(running: Running):
    found = attention(running, model="en-de", target=GERMAN)
    assert found.target == GERMAN
    assert "Hund" in "".join(places(GERMAN, found.target_tokens))
    assert array(found.cross).shape[2] == len(found.target_tokens)


def test_an_embedding_model_has_the_attention_of_its_encoder(running: Running):
    found = attention(running, model="bert-en-de")
    length = len(found.source_tokens)
    weights = array(found.encoder)
    assert weights.shape[2:] == (length, length)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)
    for name in ("decoder", "cross"):
        assert not found.HasField(name)
    for name in ("target", "target_tokens", "decoder_tokens"):
        assert not getattr(found, name)


def test_offsets_are_in_the_unit_of_the_request(running: Running):
    text, target = "Zoë sees me.", "Zoë sieht mich über."
    plain = attention(running, text, model="en-de", target=target)
    found = attention(
        running, text, model="en-de", target=target, offset_unit=OFFSET_UNIT_UTF8_BYTES
    )
    for sent, tokens, units in (
        (text, plain.source_tokens, found.source_tokens),
        (target, plain.target_tokens, found.target_tokens),
        (target, plain.decoder_tokens, found.decoder_tokens),
    ):
        for token, converted in zip(tokens, units, strict=True):
            assert (
                sent.encode()[converted.start : converted.end].decode()
                == (sent[token.start : token.end])
            )


def test_weights_do_not_depend_on_other_calls(running: Running):
    """Attention, scores, translations and vectors are asked for at the same time."""
    expected = attention(running, model="en-de", target=GERMAN)
    pairs = [TranslationPair(source=TEXT, target=GERMAN)] * 5
    scores = ScoreRequest(model="en-de", pairs=pairs)
    alone = running.translation.Score(scores).scores
    embed = EmbedRequest(model="bert-en-de", texts=[TEXT, GERMAN, "Yes."])
    vectors = running.embedding.Embed(embed).embeddings.data
    bert = attention(running, model="bert-en-de")
    with ThreadPoolExecutor(12) as pool:
        of_pairs = [pool.submit(attention, running, model="en-de", target=GERMAN) for _ in range(4)]
        of_texts = [pool.submit(attention, running, model="bert-en-de") for _ in range(4)]
        scored = [pool.submit(running.translation.Score, scores) for _ in range(4)]
        embedded = [pool.submit(running.embedding.Embed, embed) for _ in range(4)]
    for result in of_pairs:
        found = result.result()
        for name in ("encoder", "decoder", "cross"):
            np.testing.assert_allclose(
                array(getattr(found, name)), array(getattr(expected, name)), atol=1e-5
            )
    for result in of_texts:
        np.testing.assert_allclose(array(result.result().encoder), array(bert.encoder), atol=1e-5)
    for scores_of_call in scored:
        assert [s.score for s in scores_of_call.result().scores] == pytest.approx(
            [s.score for s in alone], abs=0.02
        )
    for embeddings in embedded:
        other = np.frombuffer(embeddings.result().embeddings.data, "<f4")
        np.testing.assert_allclose(other, np.frombuffer(vectors, "<f4"), atol=0.02)


BAD = {
    "an empty text": ({"text": " "}, "text: is empty, or has nothing that the model can read"),
    "a long text": ({"text": "dog " * 200}, "text: at most 128 tokens, got "),
    "an empty target": ({"target": ""}, "target: is empty, or has nothing that"),
    "a long target": ({"target": "Hund " * 200}, "target: at most 128 tokens, got "),
    "another language": ({"target_language": "fr"}, "target_language: en-de/3 has de, not 'fr'"),
    "an unknown unit": ({"offset_unit": 9}, "offset_unit: has no value 9"),
    "an unknown normalization": (
        {"text_normalization": 9},
        "text_normalization: has no value 9",
    ),
    "a target of an embedding model": (
        {"model": "bert-en-de", "target": "a"},
        "target: is for translation models only, and bert-en-de/2 is none",
    ),
    "a language of an embedding model": (
        {"model": "bert-en-de", "source_language": "en"},
        "source_language: is for translation models only, and bert-en-de/2 is none",
    ),
    "a long text of an embedding model": (
        {"model": "bert-en-de", "text": "dog " * 200},
        "text: at most 64 tokens, got ",
    ),
}


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused(running: Running, fields: dict[str, Any], message: str):
    request = GetAttentionRequest(**({"text": TEXT, "model": "en-de"} | fields))
    failure = failure_of(running.models.GetAttention, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (failure.details() or "").startswith(message)


def test_a_model_without_the_graph_says_so(running: Running, start):
    assert running.models.GetModel(GetModelRequest(model="en-de")).has_attention
    other = start(bundles=TINY_BUNDLES, models=("tiny-en-de",))
    assert not other.models.GetModel(GetModelRequest(model="tiny-en-de")).has_attention
    failure = failure_of(other.models.GetAttention, GetAttentionRequest(text=TEXT))
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == "model: tiny-en-de/1 has no attention graph"


def test_an_answer_that_is_too_large_is_refused(start):
    other = start(bundles=BUILT_IN, models=("en-de",), precision="auto", max_response_bytes=20_000)
    failure = failure_of(other.models.GetAttention, GetAttentionRequest(text=TEXT))
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 20000" in (failure.details() or "")


def test_a_graph_whose_files_have_changed_since_the_model_was_loaded_is_not_opened(
    start, tmp_path: Path
):
    shutil.copytree(BUILT_IN / "en-de", tmp_path / "en-de")
    server = start(bundles=tmp_path, precision="auto")
    path = tmp_path / "en-de/3/attention.int8.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    failure = failure_of(server.models.GetAttention, GetAttentionRequest(text=TEXT))
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == (
        "model: its attention graph cannot be opened: en-de/3/attention.int8.onnx: its SHA-256 is "
        "not the one in the manifest"
    )
    path.write_bytes(content)
    assert server.models.GetAttention(GetAttentionRequest(text=TEXT)).target


def test_pronouns_stand_for_the_candidates_that_they_attend_to(running: Running, tmp_path, capsys):
    text = "The dog saw Tom and he ran."
    path = tmp_path / "schemas.txt"
    path.write_text(f"{text}\nhe\nThe dog, Tom\nTom\n")
    target = f"127.0.0.1:{running.server.port}"
    command = ["resolve-pronouns", str(path), "--by", "attention", "--target", target, "--json"]
    assert main([*command, "--model", "bert-en-de"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    found = attention(running, text, model="bert-en-de")
    words = [text[token.start : token.end] for token in found.source_tokens]
    rows = array(found.encoder)[:, :, words.index("he")]
    dog = np.maximum(rows[:, :, words.index("The")], rows[:, :, words.index("dog")])
    tom = rows[:, :, words.index("Tom")]
    expected = np.array([dog[dog >= tom].sum(), tom[tom >= dog].sum()])
    np.testing.assert_allclose(values, expected / expected.sum(), rtol=1e-4)
