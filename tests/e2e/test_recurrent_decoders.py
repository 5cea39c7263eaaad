"""A server of models with replaced states: callers get what they get alone."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from attendant.v1.attention_pb2 import GetAttentionRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)

from tests.e2e.test_mixtures import BOUND, agree, answer, random_request, random_text
from tests.support.bundles import sentence_pairs
from tests.support.serving import running_server, wait_until

BEAM_SIZES = [1, 2, 4]


@pytest.fixture(scope="module", params=["ssru_bundle", "mixed_bundle", "lstm_bundle", "gru_bundle"])
def bundle(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def running(bundle, embedding_bundle, tmp_path_factory, loop, settings):
    root = tmp_path_factory.mktemp("recurrent")
    for each in (bundle, embedding_bundle):
        (root / each.parent.name).symlink_to(each.parent)
    with running_server(loop, settings(bundles=root)) as server:
        yield server


@pytest.mark.parametrize("seed", range(2))
def test_random_mixtures_of_calls_get_what_each_gets_alone(running, seed):
    rng = random.Random(seed)
    requests = [random_request(rng) for _ in range(60)]
    alone = [answer(running, request) for request in requests]
    with ThreadPoolExecutor(24) as callers:
        together = list(callers.map(lambda request: answer(running, request), requests))
    for request, found, expected in zip(requests, together, alone, strict=True):
        assert len(found) == len(expected), request
        assert all(map(agree, found, expected)), request


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_calls_beside_streams_that_are_cancelled_get_what_they_get_alone(running, beam_size):
    rng = random.Random(beam_size)
    requests = [
        TranslateRequest(
            texts=[random_text(rng)],
            options=TranslateOptions(
                return_tokens=True, beam_size=beam_size, max_output_tokens=rng.randint(5, 40)
            ),
        )
        for _ in range(12)
    ]
    alone = [answer(running, request) for request in requests]
    endless = TranslateOptions(
        return_tokens=True, beam_size=1, min_output_tokens=60, max_output_tokens=60
    )
    streams = [
        running.translation.StreamTranslate(
            StreamTranslateRequest(text=random_text(rng), options=endless)
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(12) as callers:
        answers = callers.map(lambda request: answer(running, request), requests)
        for stream in streams:
            next(stream)
            stream.cancel()
        together = list(answers)
    for found, expected in zip(together, alone, strict=True):
        assert all(map(agree, found, expected))
    wait_until(lambda: running.metric("attendant_rows_used") == 0)


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_a_translation_scores_what_decoding_gave_it(running, beam_size):
    english = sentence_pairs()[0][0]
    options = TranslateOptions(return_tokens=True, beam_size=beam_size)
    request = TranslateRequest(texts=[english], options=options)
    (best,) = running.translation.Translate(request).translations[0].hypotheses
    pair = TranslationPair(source=english, target=best.text)
    (scored,) = running.translation.Score(ScoreRequest(return_tokens=True, pairs=[pair])).scores
    tokens = list(best.tokens)
    assert [token.id for token in scored.tokens] == [token.id for token in tokens]
    found = list(scored.log_probabilities)
    assert found == pytest.approx([t.log_probability for t in tokens], abs=BOUND)


def test_translations_are_the_reference_outputs_of_the_bundle(running, bundle):
    reference = json.loads((bundle / "reference_outputs.json").read_text(encoding="utf-8"))
    for search, beam_size in reference["beam_sizes"].items():
        outputs = reference["outputs"]["fp32"][search]
        for text, expected in zip(reference["texts"], outputs, strict=True):
            options = TranslateOptions(
                return_tokens=True, beam_size=beam_size, max_output_tokens=text["max_output_tokens"]
            )
            [hypothesis] = answer(running, TranslateRequest(texts=[text["text"]], options=options))
            assert [token for token, _ in hypothesis] == expected["token_ids"]


def test_a_trained_model_translates(running, bundle):
    if bundle.parent.name == "tiny-gru":
        pytest.skip("a short training is too short for a decoder without attention")
    pairs = sentence_pairs()[:10]
    request = TranslateRequest(texts=[english for english, _ in pairs])
    found = [t.hypotheses[0].text for t in running.translation.Translate(request).translations]
    assert sum(f == german for f, (_, german) in zip(found, pairs, strict=True)) >= 5


def test_words_are_aligned_by_the_attention_of_the_decoder(running, bundle):
    english = sentence_pairs()[0][0]
    request = TranslateRequest(texts=[english], return_alignments=True)
    name = f"{bundle.parent.name}/1"
    if bundle.parent.name == "tiny-gru":  # has no attention
        for method, wanted in (
            (running.translation.Translate, request),
            (running.models.GetAttention, GetAttentionRequest(text=english, model=name)),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                method(wanted)
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        return
    (best,) = running.translation.Translate(request).translations[0].hypotheses
    assert best.alignments
    found = running.models.GetAttention(GetAttentionRequest(text=english, model=name))
    assert found.HasField("cross")
    assert found.HasField("encoder") == (bundle.parent.name != "tiny-lstm")


def test_the_description_of_the_model_has_the_heads_of_its_attention(running, bundle):
    request = GetModelRequest(model=bundle.parent.name)
    is_plain = "lstm" in bundle.parent.name or "gru" in bundle.parent.name
    sizes = running.models.GetModel(request).translation_sizes
    assert sizes.num_heads == (0 if is_plain else 2)
    assert sizes.num_decoder_layers == 2
