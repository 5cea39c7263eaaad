"""Sampling through the server: seeds, samples, streams and refused options."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from attendant.v1.translation_pb2 import (
    Sampling,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslateResponse,
)
from attendant_client import Client
from attendant_client import Sampling as ClientSampling

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, failure_of, running_server

SENTENCES = [english for english, _ in sentence_pairs()[:6]]
LONG = " ".join(SENTENCES[:3])
TEXTS = [*SENTENCES, LONG]
HOT = Sampling(temperature=3, seed=11)


@pytest.fixture(scope="module", params=["never", "auto"], ids="shortlists {}".format)
def running(request, loop, settings):
    with running_server(loop, settings(shortlists=request.param)) as server:
        yield server


def translate(running: Running, texts: list[str], **changed: Any) -> TranslateResponse:
    options: dict[str, Any] = {"sampling": HOT, "max_output_tokens": 20, "return_tokens": True}
    options |= changed
    request = TranslateRequest(texts=texts, options=TranslateOptions(**options))
    response: TranslateResponse = running.translation.Translate(request)
    return response


def samples(response: TranslateResponse) -> list[list[str]]:
    return [[h.text for h in translation.hypotheses] for translation in response.translations]


def test_a_seed_gives_the_same_texts_alone_and_beside_others(running: Running):
    expected = samples(translate(running, TEXTS))
    seeds = range(20)
    with ThreadPoolExecutor(20) as callers:
        together = list(
            callers.map(
                lambda seed: samples(
                    translate(
                        running,
                        TEXTS if seed % 2 else TEXTS[: seed + 1],
                        sampling=Sampling(temperature=3, seed=11, top_k=50),
                        num_hypotheses=1 + seed % 3,
                    )
                ),
                seeds,
            )
        )
    for found in together:
        assert [each[:1] for each in found] == expected[: len(found)]


def test_samples_are_independent_and_others_come_after_the_first(running: Running):
    found = samples(translate(running, TEXTS, num_hypotheses=8))
    assert all(len(each) == 8 for each in found)
    assert all(len(set(each)) > 4 for each in found)
    few = samples(translate(running, TEXTS, num_hypotheses=3))
    assert few == [each[:3] for each in found]
    same_texts = samples(translate(running, SENTENCES[:1] * 3))
    assert len({text for [text] in same_texts}) == 3


def test_without_a_seed_the_answer_has_the_one_that_was_drawn(running: Running):
    first, second = (translate(running, TEXTS, sampling=Sampling(temperature=3)) for _ in range(2))
    assert first.seed != second.seed
    assert samples(first) != samples(second)
    again = translate(running, TEXTS, sampling=Sampling(temperature=3, seed=first.seed))
    assert again.seed == first.seed
    assert samples(again) == samples(first)
    assert not translate(running, TEXTS, sampling=None).HasField("seed")
    assert translate(running, TEXTS, sampling=Sampling(seed=0)).seed == 0


def test_the_likeliest_token_alone_is_that_of_greedy_search(running: Running):
    greedy = samples(translate(running, TEXTS, sampling=None))
    assert samples(translate(running, TEXTS, sampling=Sampling(top_k=1))) == greedy
    assert samples(translate(running, TEXTS, sampling=HOT)) != greedy


@pytest.mark.parametrize("num_hypotheses", [1, 3])
def test_a_stream_has_the_samples_of_a_call_with_one_text(running: Running, num_hypotheses: int):
    options = TranslateOptions(
        sampling=HOT, num_hypotheses=num_hypotheses, max_output_tokens=20, return_tokens=True
    )
    request = StreamTranslateRequest(text=LONG, options=options)
    *deltas, last = running.translation.StreamTranslate(request)
    expected = translate(running, [LONG], num_hypotheses=num_hypotheses)
    assert [h.text for h in last.translation.hypotheses] == samples(expected)[0]
    assert "".join(m.delta for m in [*deltas, last]) == samples(expected)[0][0]
    assert last.seed == 11
    assert not any(message.HasField("seed") for message in deltas)


def test_a_part_of_the_texts_fails_alone(running: Running):
    found = translate(running, [SENTENCES[0], " ", SENTENCES[2]], num_hypotheses=2)
    assert [len(each.hypotheses) for each in found.translations] == [2, 0, 2]
    expected = translate(running, SENTENCES[:3], num_hypotheses=2)
    assert samples(found)[2] == samples(expected)[2]


def test_log_probabilities_are_those_of_the_model(running: Running):
    [greedy] = translate(running, SENTENCES[:1], sampling=None).translations[0].hypotheses
    cold = Sampling(temperature=0.01, seed=1)
    [sampled] = translate(running, SENTENCES[:1], sampling=cold).translations[0].hypotheses
    assert [token.id for token in sampled.tokens] == [token.id for token in greedy.tokens]
    for found, expected in zip(sampled.tokens, greedy.tokens, strict=True):
        assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
    assert sampled.score == pytest.approx(greedy.score, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 2}, "options.beam_size: must be 1 with sampling, got 2"),
        ({"num_hypotheses": 9}, "options.num_hypotheses: must be between 1 and 8, got 9"),
        (
            {"sampling": Sampling(temperature=0)},
            "options.sampling.temperature: must be more than 0",
        ),
        ({"sampling": Sampling(temperature=-1)}, "options.sampling.temperature: must be more"),
        ({"sampling": Sampling(temperature=float("nan"))}, "options.sampling.temperature: must"),
        ({"sampling": Sampling(temperature=float("inf"))}, "options.sampling.temperature: must"),
        (
            {"sampling": Sampling(top_k=0)},
            "options.sampling.top_k: must be between 1 and 256, got 0",
        ),
        ({"sampling": Sampling(top_k=257)}, "options.sampling.top_k: must be between 1 and 256"),
        ({"sampling": Sampling(top_p=0)}, "options.sampling.top_p: must be more than 0"),
        ({"sampling": Sampling(top_p=1.1)}, "options.sampling.top_p: must be more than 0"),
        ({"sampling": Sampling(top_p=float("nan"))}, "options.sampling.top_p: must be more"),
        ({"sampling": Sampling(min_p=-0.1)}, "options.sampling.min_p: must be between 0 and 1"),
        ({"sampling": Sampling(min_p=2)}, "options.sampling.min_p: must be between 0 and 1"),
    ],
)
def test_bad_options_name_their_field(running: Running, options: dict[str, Any], message: str):
    failure = failure_of(translate, running, SENTENCES, **options)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(message)


def test_texts_have_the_same_samples_in_one_call_and_in_several(running: Running):
    expected = samples(translate(running, TEXTS, num_hypotheses=2))
    for size in (1, 3):
        found: list[list[str]] = []
        for first in range(0, len(TEXTS), size):
            sampling = Sampling(temperature=3, seed=11, first_index=first)
            part = TEXTS[first : first + size]
            found += samples(translate(running, part, sampling=sampling, num_hypotheses=2))
        assert found == expected
    options = TranslateOptions(
        sampling=Sampling(temperature=3, seed=11, first_index=4), max_output_tokens=20
    )
    request = StreamTranslateRequest(text=TEXTS[4], options=options)
    *_, last = running.translation.StreamTranslate(request)
    assert last.translation.hypotheses[0].text == expected[4][0]


def test_a_client_splits_sampled_texts_into_calls_without_changing_them(running: Running):
    texts = TEXTS * 40
    sampling = ClientSampling(temperature=3, seed=11)
    whole = samples(translate(running, texts[:250]))
    with Client(f"127.0.0.1:{running.server.port}") as client:
        found = client.translate(texts, sampling=sampling, max_output_tokens=20)
        assert [[each.text] for each in found[:250]] == whole
        assert len({each.call.request_id for each in found}) == 1
        chosen = client.translate(texts, sampling=ClientSampling(), max_output_tokens=2)
        (seed,) = {each.call.seed for each in chosen}
        again = client.translate(
            texts[270:], sampling=ClientSampling(seed=seed, first_index=270), max_output_tokens=2
        )
        assert [each.text for each in again] == [each.text for each in chosen[270:]]
