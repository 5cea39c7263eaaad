"""In mixed batches, every caller gets the same result as alone."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.translation_pb2 import (
    Sampling,
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, running_server

BOUND = 1e-4
"""The bound of fp32, the precision of the tests' servers."""
NUM_CALLERS = 24


@pytest.fixture(scope="module", params=["never", "auto"], ids="shortlists {}".format)
def running(request, loop, settings):
    with running_server(loop, settings(shortlists=request.param)) as server:
        yield server


def random_options(rng: random.Random) -> TranslateOptions:
    beam_size = rng.choice([1, 1, 2, 3, 4, 8])
    num_hypotheses = rng.randint(1, beam_size)
    max_output_tokens = rng.randint(1, 30)
    sampling = None
    if rng.random() < 0.3:
        beam_size = 1
        sampling = Sampling(
            temperature=rng.choice([0.5, 1, 2]),
            top_k=rng.choice([2, 50, 256]),
            top_p=rng.choice([0.9, 1]),
            seed=rng.randint(0, 9),
        )
    return TranslateOptions(
        return_tokens=True,
        beam_size=beam_size,
        num_hypotheses=num_hypotheses,
        sampling=sampling,
        patience=rng.choice([1, 2]) if beam_size > 1 else None,
        no_repeat_ngram_size=rng.choice([0, 0, 0, 2, 3]),
        suppressed_token_ids=rng.sample(range(3, 100), rng.choice([0, 0, 3])),
        length_penalty=rng.choice([0.0, 0.6, 1.0, 2.0]),
        max_output_tokens=max_output_tokens,
        min_output_tokens=rng.randint(0, max_output_tokens),
    )


def random_text(rng: random.Random) -> str:
    sentences = rng.sample([english for english, _ in sentence_pairs()], rng.choice([1, 1, 2, 4]))
    return " ".join(sentences)


def random_request(rng: random.Random) -> Any:
    kind = rng.choice(["translate", "translate", "stream", "score", "embed"])
    if kind == "translate":
        texts = [random_text(rng) for _ in range(rng.randint(1, 4))]
        return TranslateRequest(texts=texts, options=random_options(rng))
    if kind == "stream":
        return StreamTranslateRequest(text=random_text(rng), options=random_options(rng))
    if kind == "score":
        pairs = [TranslationPair(source=s, target=t) for s, t in rng.sample(sentence_pairs(), 3)]
        return ScoreRequest(return_tokens=True, pairs=pairs)
    return EmbedRequest(texts=[random_text(rng) for _ in range(rng.randint(1, 6))])


def answer(running: Running, request: Any) -> list[list[tuple[Any, float]]]:
    """(token or position, number) pairs of all results of the model, per hypothesis."""
    if isinstance(request, EmbedRequest):
        data = running.embedding.Embed(request).embeddings.data
        return [[(None, value) for value in np.frombuffer(data, "<f4").tolist()]]
    if isinstance(request, ScoreRequest):
        scores = running.translation.Score(request).scores
        return [[(None, p) for p in score.log_probabilities] for score in scores]
    if isinstance(request, StreamTranslateRequest):
        messages = list(running.translation.StreamTranslate(request))
        translations = [messages[-1].translation]
        assert "".join(m.delta for m in messages) == translations[0].hypotheses[0].text
    else:
        translations = running.translation.Translate(request).translations
    return [
        [(token.id, token.log_probability) for token in hypothesis.tokens]
        for translation in translations
        for hypothesis in translation.hypotheses
    ]


def agree(found: list[tuple[Any, float]], expected: list[tuple[Any, float]]) -> bool:
    """Whether tokens are equal and numbers within the bound, or two candidates are nearly tied."""
    for (token, number), (other_token, other_number) in zip(found, expected, strict=False):
        if token != other_token:
            return abs(number - other_number) < 2 * BOUND
        if abs(number - other_number) > BOUND:
            return False
    return len(found) == len(expected)


@pytest.mark.parametrize("seed", range(3))
def test_random_mixtures_of_calls_get_what_each_gets_alone(running: Running, seed: int):
    rng = random.Random(seed)
    requests = [random_request(rng) for _ in range(60)]
    alone = [answer(running, request) for request in requests]
    with ThreadPoolExecutor(NUM_CALLERS) as callers:
        together = list(callers.map(lambda request: answer(running, request), requests))
    for request, found, expected in zip(requests, together, alone, strict=True):
        assert len(found) == len(expected), request
        assert all(map(agree, found, expected)), request
