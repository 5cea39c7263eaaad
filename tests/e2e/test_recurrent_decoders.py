"""A server of models with replaced states: callers get what they get alone."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from attendant.v1.attention_pb2 import GetAttentionRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import MARKUP_XML
from attendant.v1.translation_pb2 import (
    GlossaryEntry,
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)

from tests.e2e.test_mixtures import BOUND, agree, answer, random_request, random_text
from tests.support.bundles import sentence_pairs
from tests.support.serving import failure_of, running_server, wait_until

BEAM_SIZES = [1, 4]
NEED_ALIGNER = {
    "return_alignments": TranslateRequest(return_alignments=True),
    "options.replace_unknown": TranslateRequest(options=TranslateOptions(replace_unknown=True)),
    "options.coverage_penalty": TranslateRequest(
        options=TranslateOptions(beam_size=2, coverage_penalty=0.5)
    ),
    "glossary_entries": TranslateRequest(
        glossary_entries=[GlossaryEntry(source="king", targets=["Mann"])]
    ),
    "markup": TranslateRequest(markup=MARKUP_XML),
}
"""Requests, by the field for which a model needs an aligner."""


WITHOUT_ATTENTION = "tiny-gru", "tiny-bytenet"
BUNDLES = "mixed_bundle", "lstm_bundle", "gru_bundle", "bytenet_bundle", "slicenet_bundle"


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def running(bundle, embedding_bundle, tmp_path_factory, loop, settings):
    root = tmp_path_factory.mktemp("recurrent")
    for each in (bundle, embedding_bundle):
        (root / each.parent.name).symlink_to(each.parent)
    with running_server(loop, settings(bundles=root)) as server:
        yield server


def test_random_mixtures_of_calls_get_what_each_gets_alone(running):
    rng = random.Random(0)
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


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_a_translation_goes_on_after_its_prefix_as_it_is_scored(running, beam_size):
    english = sentence_pairs()[0][0]
    request = TranslateRequest(
        texts=[english],
        options=TranslateOptions(return_tokens=True, beam_size=beam_size),
        target_prefixes=["Der kleine Hund"],
    )
    [best] = running.translation.Translate(request).translations[0].hypotheses
    assert best.text.startswith("Der kleine Hund")
    pair = TranslationPair(source=english, target=best.text)
    [scored] = running.translation.Score(ScoreRequest(return_tokens=True, pairs=[pair])).scores
    assert [token.id for token in scored.tokens] == [token.id for token in best.tokens]
    found = [token.log_probability for token in best.tokens]
    num_forced = sum(value == 0 for value in found)
    assert 3 <= num_forced < len(found)
    assert found[num_forced:] == pytest.approx(
        list(scored.log_probabilities)[num_forced:], abs=BOUND
    )


def test_a_trained_model_tells_the_translation_of_a_text_from_those_of_other_texts(running, bundle):
    pairs = sentence_pairs()[:10]
    targets = [german for _, german in pairs]
    scores = [
        running.translation.Score(
            ScoreRequest(pairs=[TranslationPair(source=source, target=t) for t in targets])
        ).scores
        for source, _ in pairs
    ]
    ranks = [sum(other.score > each[i].score for other in each) for i, each in enumerate(scores)]
    # Ranks at random add up to 45. A short training is short for a decoder without attention.
    assert sum(ranks) <= (20 if bundle.parent.name in WITHOUT_ATTENTION else 2), ranks


@pytest.mark.parametrize("field", NEED_ALIGNER)
def test_what_needs_an_aligner_is_answered_or_refused_by_its_name(running, bundle, field):
    request = TranslateRequest(texts=[sentence_pairs()[0][0]])
    request.MergeFrom(NEED_ALIGNER[field])
    if bundle.parent.name not in WITHOUT_ATTENTION:
        [best] = running.translation.Translate(request).translations[0].hypotheses
        assert bool(best.alignments) == request.return_alignments
        assert [term.target for term in best.glossary_terms] == (
            ["Mann"] if request.glossary_entries else []
        )
        return
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == f"{field}: {bundle.parent.name}/1 has no aligner"


def test_attention_is_that_of_the_layers_that_have_it(running, bundle):
    kind = bundle.parent.name
    request = GetAttentionRequest(text=sentence_pairs()[0][0], model=f"{kind}/1")
    if kind in WITHOUT_ATTENTION:
        failure = failure_of(running.models.GetAttention, request)
        assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
        return
    found = running.models.GetAttention(request)
    assert found.HasField("cross")
    assert found.HasField("encoder") == (kind == "tiny-mixed")


def test_the_description_of_the_model_has_the_heads_of_its_attention(running, bundle):
    request = GetModelRequest(model=bundle.parent.name)
    is_plain = bundle.parent.name != "tiny-mixed"
    sizes = running.models.GetModel(request).translation_sizes
    assert sizes.num_heads == (0 if is_plain else 2)
    assert sizes.num_decoder_layers == 2
