"""Beam searches with a coverage penalty."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1.translation_pb2 import (
    Sampling,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    Translation,
)
from attendant_server.application.copying import Piece
from attendant_server.application.coverage import uncovered
from attendant_server.application.pieced_text import PiecedText
from attendant_server.tokenizer import TextTokenizer

from tests.support.application import TINY_BUNDLES
from tests.support.serving import Running, failure_of, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
TEXTS = [
    "My brother told me yesterday that he does not want to see you again, because he is angry.",
    "If it rains tomorrow, we will stay at home and read the old books of my grandfather.",
    "The man who lives next door bought a car, a house and a small boat. He is rich.",
    "Would you please open the window, turn off the light and come here?",
]


@pytest.fixture(scope="module")
def running(loop, settings) -> Iterator[Running]:
    options = {"bundles": BUILT_IN, "models": ("en-de",), "precision": "auto"}
    with running_server(loop, settings(**options)) as server:
        yield server


def translated(running: Running, **options: Any) -> list[Translation]:
    request = TranslateRequest(texts=TEXTS, options=TranslateOptions(beam_size=6, **options))
    return list(running.translation.Translate(request).translations)


def of(translations: list[Translation]) -> list[list[tuple[str, float]]]:
    return [[(each.text, each.score) for each in t.hypotheses] for t in translations]


def test_the_penalty_orders_the_hypotheses_of_the_same_search(running: Running):
    plain = of(translated(running, num_hypotheses=6))
    ranked = of(translated(running, num_hypotheses=6, coverage_penalty=10))
    one_sentence = [0, 1, 3]
    assert [sorted(ranked[i]) for i in one_sentence] == [sorted(plain[i]) for i in one_sentence]
    assert ranked != plain


def test_fewer_hypotheses_are_the_first_ones(running: Running):
    many = of(translated(running, num_hypotheses=6, coverage_penalty=1))
    assert of(translated(running, num_hypotheses=2, coverage_penalty=1)) == [h[:2] for h in many]


def test_no_penalty_changes_nothing(running: Running):
    options = {"num_hypotheses": 3}
    assert translated(running, **options, coverage_penalty=0) == translated(running, **options)


def test_a_stream_ends_with_the_same_translation(running: Running):
    for text, translation in zip(TEXTS, translated(running, coverage_penalty=5), strict=True):
        options = TranslateOptions(beam_size=6, coverage_penalty=5)
        request = StreamTranslateRequest(text=text, options=options)
        pieces = list(running.translation.StreamTranslate(request))
        assert pieces[-1].translation.hypotheses == translation.hypotheses
        assert "".join(each.delta for each in pieces) == translation.hypotheses[0].text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage_penalty": 11, "beam_size": 2}, "must be between 0 and 10"),
        ({"coverage_penalty": -1, "beam_size": 2}, "must be between 0 and 10"),
        ({"coverage_penalty": float("nan"), "beam_size": 2}, "must be between 0 and 10"),
        ({"coverage_penalty": 1, "beam_size": 1}, "is for beam searches without alternatives only"),
        ({"coverage_penalty": 1, "sampling": Sampling()}, "is for beam searches"),
        (
            {"coverage_penalty": 1, "beam_size": 2, "return_alternatives": True},
            "is for beam searches without alternatives only",
        ),
    ],
)
def test_a_bad_penalty_is_refused(running: Running, options, message):
    request = TranslateRequest(texts=["a"], options=TranslateOptions(**options))
    failure = failure_of(lambda: running.translation.Translate(request))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("options.coverage_penalty: ")
    assert message in failure.details()


def test_a_model_without_an_aligner_is_refused(loop, settings):
    options = TranslateOptions(coverage_penalty=1, beam_size=2)
    with running_server(loop, settings(bundles=TINY_BUNDLES)) as server:
        request = TranslateRequest(texts=["a"], options=options)
        failure = failure_of(lambda: server.translation.Translate(request))
        assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_source_token_counts_by_the_attention_of_all_target_tokens_up_to_one():
    definition = (BUILT_IN / "en-de" / "3" / "tokenizer.json").read_text(encoding="utf-8")
    tokens = TextTokenizer(definition).encode("dog cat house")
    text = PiecedText(
        "dog cat house",
        0,
        [Piece(0, 13, "dog cat house")],
        [tokens.token_ids],
        4,
        4,
        None,
        [tokens],
    )
    num_special = sum(token.is_special for token in tokens)
    assert len(tokens) == 3 + num_special
    weights = np.zeros((2, len(tokens)), np.float32)
    weights[0, :3] = [0.7, 0.3, 0.0]
    weights[1, :3] = [0.6, 0.2, 0.0]
    assert uncovered(text, 0, weights) == pytest.approx(np.log(0.5) + np.log(0.01))
