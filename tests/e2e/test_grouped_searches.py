"""Diverse translations, and alternatives at a position, through the server."""

from typing import Any

import grpc
import pytest
from attendant.v1.model_pb2 import TEXT_SIDE_TARGET, TokenizeRequest
from attendant.v1.text_pb2 import SPLITTING_NONE, SPLITTING_SENTENCES
from attendant.v1.translation_pb2 import (
    Sampling,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    Translation,
)
from attendant_client import Client

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, failure_of, running_server

SENTENCES = [english for english, _ in sentence_pairs()[:5]]
LONG = " ".join(SENTENCES[:3])


@pytest.fixture(scope="module", params=["never", "auto"], ids="shortlists {}".format)
def running(request, loop, settings):
    with running_server(loop, settings(shortlists=request.param)) as server:
        yield server


def translate(running: Running, texts: list[str], **options: Any) -> list[Translation]:
    request = TranslateRequest(texts=texts)
    request.target_prefixes.extend(options.pop("target_prefixes", ()))
    request.options.CopyFrom(TranslateOptions(return_tokens=True, **options))
    return list(running.translation.Translate(request).translations)


def ids(hypothesis: Any) -> list[int]:
    return [token.id for token in hypothesis.tokens]


def test_groups_without_a_penalty_are_searches_of_their_own(running: Running):
    grouped = translate(
        running, SENTENCES, beam_size=4, num_beam_groups=2, num_hypotheses=4, diversity_penalty=0
    )
    alone = translate(running, SENTENCES, beam_size=2, num_hypotheses=2)
    for found, expected in zip(grouped, alone, strict=True):
        assert [each.text for each in found.hypotheses] == [
            each.text for each in expected.hypotheses
        ]


def test_penalties_give_hypotheses_with_different_beginnings(running: Running):
    # An end is no token that a search goes on with, so several searches could begin with it.
    options: dict[str, Any] = {"beam_size": 4, "num_hypotheses": 4, "min_output_tokens": 2}
    usual = translate(running, SENTENCES, **options)
    diverse = translate(running, SENTENCES, num_beam_groups=4, diversity_penalty=90, **options)

    def num_beginnings(translations: list[Translation]) -> int:
        return sum(len({ids(h)[0] for h in each.hypotheses}) for each in translations)

    assert num_beginnings(diverse) == 4 * len(SENTENCES) > num_beginnings(usual)
    for translation in diverse:
        scores = [each.score for each in translation.hypotheses]
        assert scores == sorted(scores, reverse=True)
        for each in translation.hypotheses:
            log_probabilities = [token.log_probability for token in each.tokens]
            assert each.score == pytest.approx(sum(log_probabilities) / len(each.tokens), abs=1e-4)


def test_diverse_translations_are_the_same_alone_and_beside_other_searches(running: Running):
    options: dict[str, Any] = {"beam_size": 6, "num_beam_groups": 3, "num_hypotheses": 6}
    pending = [
        running.translation.Translate.future(
            TranslateRequest(texts=SENTENCES, options=TranslateOptions(beam_size=beam_size))
        )
        for beam_size in (1, 6, 6, 2)
    ]
    together = translate(running, SENTENCES, **options)
    for each in pending:
        each.result()
    for text, expected in zip(SENTENCES, together, strict=True):
        (alone,) = translate(running, [text], **options)
        assert [h.text for h in alone.hypotheses] == [h.text for h in expected.hypotheses]


def test_the_sentences_of_a_text_are_searched_with_groups_each(running: Running):
    (found,) = translate(running, [LONG], beam_size=4, num_beam_groups=4, num_hypotheses=4)
    each = translate(running, SENTENCES[:3], beam_size=4, num_beam_groups=4, num_hypotheses=4)
    parts = [part.hypotheses[0].text for part in each]
    assert found.hypotheses[0].text == " ".join(parts)


def num_prefix_tokens(running: Running, prefix: str) -> int:
    request = TokenizeRequest(texts=[prefix], model="tiny-en-de", side=TEXT_SIDE_TARGET)
    (result,) = running.models.Tokenize(request).results
    return sum(not token.special for token in result.tokens)


def next_tokens(running: Running, text: str, prefix: str, number: int) -> list[int]:
    """The likeliest tokens at a position, one after the other, by forbidding those before."""
    found: list[int] = []
    position = num_prefix_tokens(running, prefix)
    for _ in range(number):
        (best,) = translate(
            running,
            [text],
            target_prefixes=[prefix],
            suppressed_token_ids=found,
            max_output_tokens=position + 1,
        )
        found.append(ids(best.hypotheses[0])[position])
    return found


@pytest.mark.parametrize("prefix", ["", "Der", "Die alte"])
@pytest.mark.parametrize("beam_size", [1, 2])
def test_alternatives_begin_with_the_likeliest_tokens_after_the_prefix(
    running: Running, prefix: str, beam_size: int
):
    text, number = SENTENCES[0], 4
    (found,) = translate(
        running,
        [text],
        target_prefixes=[prefix],
        return_alternatives=True,
        num_hypotheses=number,
        beam_size=beam_size,
    )
    position = num_prefix_tokens(running, prefix)
    chosen = [ids(each)[position] for each in found.hypotheses]
    assert chosen == next_tokens(running, text, prefix, number)
    log_probabilities = [each.tokens[position].log_probability for each in found.hypotheses]
    assert log_probabilities == sorted(log_probabilities, reverse=True)
    num_compared = 0
    for each in found.hypotheses:
        assert each.text.startswith(prefix)
        tokens = [token.text for token in each.tokens[: position + 1]]
        begun = "".join(tokens).replace("\u2581", " ").strip()
        (expected,) = translate(running, [text], target_prefixes=[begun], beam_size=beam_size)
        is_same = not expected.HasField("error") and (
            ids(expected.hypotheses[0])[: position + 1] == ids(each)[: position + 1]
        )
        num_compared += is_same
        if is_same:
            assert expected.hypotheses[0].text == each.text
    assert num_compared
    (best,) = translate(running, [text], target_prefixes=[prefix], beam_size=1)
    if beam_size == 1:
        assert ids(found.hypotheses[0]) == ids(best.hypotheses[0])


def test_texts_with_alternatives_are_not_split(running: Running):
    whole = TranslateRequest(texts=[LONG], splitting=SPLITTING_NONE)
    expected = running.translation.Translate(whole).translations[0].hypotheses[0].text
    (found,) = translate(running, [LONG], return_alternatives=True, num_hypotheses=2)
    assert expected in [each.text for each in found.hypotheses]
    assert len(found.hypotheses) == 2
    (one,) = translate(running, [LONG], return_alternatives=True)
    assert [each.text for each in one.hypotheses] == [expected]


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 4, "num_beam_groups": 2, "num_hypotheses": 4},
        {"return_alternatives": True, "num_hypotheses": 3},
    ],
)
def test_streams_give_the_same_hypotheses(running: Running, options: dict[str, Any]):
    (expected,) = translate(running, SENTENCES[:1], **options)
    request = StreamTranslateRequest(text=SENTENCES[0], options=TranslateOptions(**options))
    *pieces, last = running.translation.StreamTranslate(request)
    found = last.translation.hypotheses
    assert [each.text for each in found] == [each.text for each in expected.hypotheses]
    assert "".join(piece.delta for piece in (*pieces, last)) == found[0].text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_beam_groups": 0}, "num_beam_groups: must divide beam_size, which is 1, got 0"),
        ({"beam_size": 4, "num_beam_groups": 3}, "num_beam_groups: must divide beam_size"),
        ({"num_beam_groups": 2}, "num_beam_groups: must divide beam_size, which is 1, got 2"),
        ({"beam_size": 4, "diversity_penalty": 1}, "diversity_penalty: needs several"),
        (
            {"beam_size": 4, "num_beam_groups": 2, "diversity_penalty": -1},
            "diversity_penalty: must be between 0 and 100",
        ),
        (
            {"beam_size": 4, "num_beam_groups": 2, "diversity_penalty": float("nan")},
            "diversity_penalty: must be between 0 and 100",
        ),
        (
            {"return_alternatives": True, "beam_size": 2, "num_hypotheses": 5},
            "beam_size: must be between 1 and 1 with 5 alternatives, got 2",
        ),
        ({"return_alternatives": True, "beam_size": 0}, "beam_size: must be between 1 and 8"),
        (
            {"return_alternatives": True, "num_hypotheses": 9},
            "num_hypotheses: must be between 1 and 8, got 9",
        ),
        (
            {"return_alternatives": True, "sampling": Sampling()},
            "return_alternatives: is for searches without sampling only",
        ),
        (
            {"return_alternatives": True, "beam_size": 2, "num_beam_groups": 2},
            "num_beam_groups: must be 1 with return_alternatives",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    running: Running, options: dict[str, Any], problem: str
):
    request = TranslateRequest(texts=["a"], options=TranslateOptions(**options))
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(f"options.{problem}")


def test_alternatives_are_for_whole_texts(running: Running):
    request = TranslateRequest(
        texts=["a"],
        options=TranslateOptions(return_alternatives=True),
        splitting=SPLITTING_SENTENCES,
    )
    failure = failure_of(running.translation.Translate, request)
    assert failure.details().startswith("splitting: is for texts without target prefixes or alter")


def test_the_client_and_its_texts_have_the_options(running: Running):
    with Client(f"127.0.0.1:{running.server.port}") as client:
        found = client.translate(
            SENTENCES, return_alternatives=True, num_hypotheses=3, return_tokens=True
        )
        for each in found:
            assert len({hypothesis.tokens[0].id for hypothesis in each.hypotheses}) == 3
        diverse = client.translate(
            SENTENCES[0], beam_size=4, num_beam_groups=2, diversity_penalty=3, num_hypotheses=2
        )
        assert len({hypothesis.text for hypothesis in diverse.hypotheses}) == 2
