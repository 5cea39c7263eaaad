"""Unknown tokens of translations are replaced by the text of the source that they come from.

To the model of these tests, the name Tom was the unknown token, so it writes that for any text that
its vocabulary lacks.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1.text_pb2 import MARKUP_HTML, TEXT_NORMALIZATION_NONE
from attendant.v1.translation_pb2 import (
    Hypothesis,
    Sampling,
    StreamTranslateRequest,
    StreamTranslateResponse,
    TranslateOptions,
    TranslateRequest,
)
from attendant_client import Client

from tests.support.application import TINY_BUNDLES
from tests.support.serving import Running, failure_of, running_server
from tests.support.unknown_names import write_bundle

TEXT = "I know that 犬 is old."
TEXTS = [
    "犬 reads a book.",
    TEXT,
    "Where is 犬, and why did he see the dog?",
    "  Do you think 犬 and 猫 are right?\n\n犬 said yes.",
    "The dog sees the cat.",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, loop, settings) -> Iterator[Running]:
    bundles: Path = write_bundle(tmp_path_factory.mktemp("unknown-names"))
    with running_server(loop, settings(bundles=bundles, precision="auto")) as server:
        yield server


def request_of(
    texts: list[str], fields: dict[str, Any] | None = None, **options: Any
) -> TranslateRequest:
    return TranslateRequest(
        texts=texts,
        text_normalization=TEXT_NORMALIZATION_NONE,
        options=TranslateOptions(**options),
        **fields or {},
    )


def translated(
    running: Running, texts: list[str], fields: dict[str, Any] | None = None, **options: Any
) -> list[list[Hypothesis]]:
    request = request_of(texts, fields, **({"replace_unknown": True} | options))
    return [list(t.hypotheses) for t in running.translation.Translate(request).translations]


def streamed(running: Running, text: str, **options: Any) -> list[StreamTranslateResponse]:
    request = StreamTranslateRequest(
        text=text,
        text_normalization=TEXT_NORMALIZATION_NONE,
        options=TranslateOptions(replace_unknown=True, **options),
    )
    return list(running.translation.StreamTranslate(request))


@pytest.mark.parametrize("beam_size", [1, 4])
def test_the_text_of_the_source_takes_the_place_of_each_unknown_token(
    running: Running, beam_size: int
):
    plain = translated(running, TEXTS, replace_unknown=False, beam_size=beam_size)
    found = translated(running, TEXTS, beam_size=beam_size, return_tokens=True)
    assert found[1][0].text == "Ich weiß, dass 犬 alt ist."
    for [before], [after] in zip(plain, found, strict=True):
        num_unknown = [token.text for token in after.tokens].count("<unk>")
        assert (
            after.num_replaced_tokens
            == num_unknown
            == after.text.count("犬") + after.text.count("猫")
        )
        assert before.num_replaced_tokens == 0
        assert after.score == before.score
        without = after.text.replace("犬", "").replace("猫", "")
        assert without.replace(" ", "") == before.text.replace(" ", "")
        assert "  " not in after.text.strip()
    assert [h.num_replaced_tokens > 0 for [h] in found] == [True, True, True, True, False]
    assert found[-1][0].text == plain[-1][0].text


def test_all_hypotheses_and_samples_are_replaced(running: Running):
    [best] = translated(running, [TEXT], beam_size=4, num_hypotheses=4)
    assert sum(h.num_replaced_tokens > 0 for h in best) > 1
    [samples] = translated(running, [TEXT], num_hypotheses=4, sampling=Sampling(seed=3, top_k=2))
    assert sum(h.num_replaced_tokens > 0 for h in samples) > 1
    for hypothesis in [*best, *samples]:
        assert hypothesis.text.count("犬") == hypothesis.num_replaced_tokens


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 4, "num_hypotheses": 2},
        {"num_hypotheses": 2, "sampling": Sampling(seed=3, top_k=2)},
        {"beam_size": 4, "coverage_penalty": 1},
    ],
    ids=["greedy", "beam", "samples", "coverage"],
)
def test_a_stream_delivers_the_same_text_and_never_takes_it_back(
    running: Running, options: dict[str, Any]
):
    for text in TEXTS[1:4]:
        [hypotheses] = translated(running, [text], **options)
        pieces = streamed(running, text, **options)
        assert "".join(piece.delta for piece in pieces) == hypotheses[0].text
        assert list(pieces[-1].translation.hypotheses) == hypotheses
        assert all(piece.delta for piece in pieces[:-1])


def test_a_stream_delivers_the_words_before_an_unknown_token_at_once(running: Running):
    first, *_ = streamed(running, TEXT, beam_size=1)
    assert first.delta
    assert "Ich weiß, dass 犬 alt ist.".startswith(first.delta)
    assert "犬" not in first.delta


def test_replaced_words_are_linked_to_themselves_and_places_are_right(running: Running):
    fields = {"return_alignments": True, "return_sentences": True}
    for text, [hypothesis] in zip(TEXTS, translated(running, TEXTS, fields), strict=True):
        links = [
            (
                text[link.source_start : link.source_end],
                hypothesis.text[link.target_start : link.target_end],
            )
            for link in hypothesis.alignments
        ]
        assert {one for one, _ in links if one in "犬猫"} >= set(hypothesis.text) & set("犬猫")
        assert all(one == two for one, two in links if two in "犬猫")
        assert all(two == two.strip() != "" for _, two in links)
        places = [hypothesis.text[s.target_start : s.target_end] for s in hypothesis.sentences]
        assert all(place == place.strip() != "" for place in places)
        assert places[-1] == hypothesis.text[-len(places[-1]) :]


def test_markup_is_put_around_replaced_words(running: Running):
    [[found]] = translated(running, ["I know that <b>犬</b> is old."], {"markup": MARKUP_HTML})
    assert found.text == "Ich weiß, dass <b>犬</b> alt ist."
    assert found.num_replaced_tokens == 1


def test_a_forced_beginning_stays_as_it_was_sent(running: Running):
    fields = {"target_prefixes": [" Ich weiß "], "return_alignments": True}
    [[found]] = translated(running, [TEXT], fields, beam_size=1)
    assert found.text.startswith("Ich weiß")
    assert "dass 犬 " in found.text
    [target] = {
        found.text[link.target_start : link.target_end]
        for link in found.alignments
        if TEXT[link.source_start : link.source_end] == "犬"
    }
    assert target == "犬"


def test_bulk_calls_and_the_client_replace_tokens_too(running: Running):
    options: dict[str, Any] = {"replace_unknown": True, "text_normalization": "none"}
    with Client(f"127.0.0.1:{running.server.port}") as client:
        whole = client.translate(TEXTS, **options)
        bulk = list(client.bulk_translate(TEXTS, **options))
        stream = client.stream_translate(TEXT, **options)
        assert "".join(stream) == whole[1].text
    assert [each.text for each in bulk] == [each.text for each in whole]
    counts = [each.hypotheses[0].num_replaced_tokens for each in whole]
    assert [each.hypotheses[0].num_replaced_tokens for each in bulk] == counts
    assert counts[1] == 1


def test_unknown_tokens_come_only_if_they_are_not_suppressed(running: Running):
    [[found]] = translated(running, [TEXT], allow_unknown=True)
    assert found.num_replaced_tokens == 1
    request = request_of([TEXT], replace_unknown=True, allow_unknown=False)
    failure = failure_of(lambda: running.translation.Translate(request))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == (
        "options.allow_unknown: must not be false with options.replace_unknown, which replaces "
        "unknown tokens"
    )


def test_a_model_without_an_aligner_is_refused(loop, settings):
    with running_server(loop, settings(bundles=TINY_BUNDLES)) as server:
        request = request_of(["a"], replace_unknown=True)
        failure = failure_of(lambda: server.translation.Translate(request))
        assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.details() == "options.replace_unknown: tiny-en-de/1 has no aligner"
