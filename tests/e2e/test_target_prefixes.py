"""Translations that continue beginnings which callers give."""

from typing import Any

import grpc
import pytest
from attendant.v1.text_pb2 import SPLITTING_SENTENCES
from attendant.v1.translation_pb2 import (
    Sampling,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslateResponse,
)

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, failure_of, running_server

SENTENCES = [english for english, _ in sentence_pairs()[:8]]
EVERY_SEARCH = pytest.mark.parametrize("beam_size", [1, 4])


@pytest.fixture(scope="module", params=["never", "auto"], ids="shortlists {}".format)
def running(request, loop, settings):
    with running_server(loop, settings(shortlists=request.param)) as server:
        yield server


def translate(
    running: Running, texts: list[str], prefixes: list[str], **fields: Any
) -> TranslateResponse:
    options = TranslateOptions(return_tokens=True, **fields.pop("options", {}))
    request = TranslateRequest(texts=texts, target_prefixes=prefixes, options=options, **fields)
    response: TranslateResponse = running.translation.Translate(request)
    return response


def best(response: TranslateResponse) -> list[str]:
    return [translation.hypotheses[0].text for translation in response.translations]


def beginnings(texts: list[str]) -> list[str]:
    """The first one, two or three words of each text."""
    return [" ".join(text.split()[: 1 + i % 3]) for i, text in enumerate(texts)]


@EVERY_SEARCH
def test_the_beginning_of_a_translation_is_continued_as_before(running: Running, beam_size: int):
    options = {"beam_size": beam_size}
    plain = best(translate(running, SENTENCES, [], options=options))
    found = translate(running, SENTENCES, beginnings(plain), options=options)
    if beam_size == 1:
        assert best(found) == plain
    for prefix, translation in zip(beginnings(plain), found.translations, strict=True):
        [hypothesis] = translation.hypotheses
        assert hypothesis.text.startswith(prefix)
        assert len(hypothesis.text) > len(prefix)
        assert hypothesis.tokens[0].log_probability == 0
        assert hypothesis.tokens[-1].log_probability < 0


@EVERY_SEARCH
def test_every_hypothesis_begins_with_any_prefix(running: Running, beam_size: int):
    prefix = "der Hund der Hund der"
    options = {
        "beam_size": beam_size,
        "num_hypotheses": beam_size,
        "no_repeat_ngram_size": 1,
        "suppressed_texts": ["Hund"],
    }
    for translation in translate(running, SENTENCES, [prefix] * 8, options=options).translations:
        assert len({hypothesis.text for hypothesis in translation.hypotheses}) == beam_size
        assert all(hypothesis.text.startswith(prefix) for hypothesis in translation.hypotheses)


def test_words_that_no_source_suggests_are_continued_alike_by_steps_of_several_tokens(
    running: Running,
):
    prefixes = ["Die alte"] * len(SENTENCES)
    found = translate(running, SENTENCES, prefixes)
    # This rule forbids nothing in a short translation, and has to see every token.
    step_by_step = {"no_repeat_ngram_size": 40}
    expected = translate(running, SENTENCES, prefixes, options=step_by_step)
    assert best(found) == best(expected)


def test_samples_begin_with_the_prefix(running: Running):
    options = {"sampling": Sampling(temperature=3, seed=1), "num_hypotheses": 6}
    [found] = translate(running, SENTENCES[:1], ["Der alte"], options=options).translations
    assert len({hypothesis.text for hypothesis in found.hypotheses}) > 3
    assert all(hypothesis.text.startswith("Der alte") for hypothesis in found.hypotheses)


def test_texts_without_a_prefix_are_not_concerned(running: Running):
    texts = [SENTENCES[0], " ".join(SENTENCES[:3]), SENTENCES[1]]
    found = best(translate(running, texts, ["Der ", "", " \n"]))
    assert found[0].startswith("Der")
    assert found[1:] == best(translate(running, texts[1:], []))
    assert found[:1] == best(translate(running, texts[:1], ["Der"]))


@EVERY_SEARCH
@pytest.mark.parametrize("text", [SENTENCES[0], " ".join(SENTENCES[:2]), f"  {SENTENCES[1]} \n"])
def test_a_stream_adds_up_to_the_translation(running: Running, beam_size: int, text: str):
    request = StreamTranslateRequest(
        text=text,
        target_prefix="Der alte Hund",
        return_sentences=True,
        options=TranslateOptions(beam_size=beam_size, return_tokens=True),
    )
    *deltas, last = running.translation.StreamTranslate(request)
    [hypothesis] = last.translation.hypotheses
    assert "".join(message.delta for message in [*deltas, last]) == hypothesis.text
    assert hypothesis.text.startswith("Der alte Hund")
    [sentence] = hypothesis.sentences
    assert (sentence.source_start, sentence.source_end) == (0, len(text))
    assert (sentence.target_start, sentence.target_end) == (0, len(hypothesis.text))
    options = {"beam_size": beam_size}
    whole = translate(running, [text], ["Der alte Hund"], options=options)
    assert best(whole) == [hypothesis.text]


def test_nothing_is_copied_into_the_translation_of_a_text_with_a_prefix(running: Running):
    texts = [f"😀 {SENTENCES[0]}", f"{SENTENCES[0]} see https://example.org/a?b=c now"]
    for found in best(translate(running, texts, ["Der König"] * 2)):
        assert found.startswith("Der König")
        assert "😀" not in found
        assert "https" not in found


def test_a_prefix_is_kept_as_it_was_sent(running: Running):
    decomposed = "Der Ko\u0308nig"
    assert best(translate(running, SENTENCES[:1], [decomposed]))[0].startswith(decomposed)
    assert best(translate(running, SENTENCES[:1], ["Der  alte"]))[0].startswith("Der  alte")


def test_a_prefix_that_repeats_itself_is_no_loop(running: Running):
    prefix = "Hund " * 9 + "Hund"
    [found] = translate(
        running, SENTENCES[:1], [prefix], options={"repetition_guard": True}
    ).translations
    assert found.hypotheses[0].text.startswith(prefix)


def test_the_default_limit_counts_the_tokens_after_the_prefix(running: Running):
    prefix = "Hund Hund Hund Hund Hund Hund"
    # No end, except by the limit.
    options = {"suppressed_token_ids": [2], "repetition_guard": False}
    [plain] = translate(running, SENTENCES[:1], [], options=options).translations
    [found] = translate(running, SENTENCES[:1], [prefix], options=options).translations
    num_forced = sum(token.log_probability == 0 for token in found.hypotheses[0].tokens)
    assert num_forced >= 6
    expected = min(64, len(plain.hypotheses[0].tokens) + num_forced)
    assert len(found.hypotheses[0].tokens) == expected


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("犬", "has text that the vocabulary of the model lacks"),
        ("Der 😀", "has text that the vocabulary of the model lacks"),
        ("\u200b", "has text that the vocabulary of the model lacks"),
        ("Hund " * 64, "at most 63 tokens, one less than a translation, got "),
        ("H" * 20_001, "at most 20000 characters, got 20001"),
    ],
)
def test_a_bad_prefix_fails_its_text_alone(running: Running, prefix: str, message: str):
    bad, good = translate(running, SENTENCES[:2], [prefix, "Der"]).translations
    assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert bad.error.message.startswith(f"target_prefixes[0]: {message}")
    assert good.hypotheses[0].text.startswith("Der")
    request = StreamTranslateRequest(text=SENTENCES[0], target_prefix=prefix)
    failure = failure_of(lambda: list(running.translation.StreamTranslate(request)))
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(f"target_prefix: {message}")


def test_a_prefix_must_be_shorter_than_the_limit_of_the_call(running: Running):
    options = {"max_output_tokens": 2}
    [found] = translate(running, SENTENCES[:1], ["Der alte Hund"], options=options).translations
    assert found.error.message.startswith("target_prefixes[0]: at most 1 tokens")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"target_prefixes": ["Der"]},
            "target_prefixes: as many as texts, which are 2, or none, got 1",
        ),
        (
            {"target_prefixes": ["", "Der"], "splitting": SPLITTING_SENTENCES},
            "splitting: is for texts without target prefixes or alternatives only",
        ),
    ],
)
def test_a_bad_combination_fails_the_call(running: Running, fields: dict[str, Any], message: str):
    request = TranslateRequest(texts=SENTENCES[:2], **fields)
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == message


@EVERY_SEARCH
def test_a_bias_decides_how_much_a_prefix_counts(running: Running, beam_size: int):
    plain = best(translate(running, SENTENCES, [], options={"beam_size": beam_size}))
    prefixes = beginnings(plain[1:] + plain[:1])  # those of other sentences
    forced = best(translate(running, SENTENCES, prefixes, options={"beam_size": beam_size}))
    for bias, expected in ((100, forced), (1e-6, plain)):
        options = {"beam_size": beam_size, "target_prefix_bias": bias}
        assert best(translate(running, SENTENCES, prefixes, options=options)) == expected
    num_followed = [
        sum(
            text.startswith(prefix)
            for text, prefix in zip(
                best(
                    translate(
                        running,
                        SENTENCES,
                        prefixes,
                        options={"beam_size": beam_size, "target_prefix_bias": bias},
                    )
                ),
                prefixes,
                strict=True,
            )
        )
        for bias in (1e-6, 2, 5, 100)
    ]
    assert num_followed == sorted(num_followed)
    assert num_followed[0] < num_followed[-1] == len(SENTENCES)


def test_a_stream_and_samples_follow_the_bias_too(running: Running):
    prefix = "Der Hund"
    options: dict[str, Any] = {"target_prefix_bias": 100}
    [expected] = best(translate(running, SENTENCES[:1], [prefix], options=options))
    assert expected.startswith(prefix)
    request = StreamTranslateRequest(
        text=SENTENCES[0], target_prefix=prefix, options=TranslateOptions(**options)
    )
    pieces = list(running.translation.StreamTranslate(request))
    assert "".join(piece.delta for piece in pieces) == expected
    options = {"target_prefix_bias": 100, "num_hypotheses": 3, "sampling": Sampling(seed=1)}
    [samples] = translate(running, SENTENCES[:1], [prefix], options=options).translations
    assert all(each.text.startswith(prefix) for each in samples.hypotheses)


@pytest.mark.parametrize(
    ("options", "prefixes", "message"),
    [
        ({"target_prefix_bias": 0}, ["a"], "must be more than 0 and at most 100"),
        ({"target_prefix_bias": float("nan")}, ["a"], "must be more than 0 and at most 100"),
        ({"target_prefix_bias": 101}, ["a"], "must be more than 0 and at most 100"),
        ({"target_prefix_bias": 1}, [], "is for texts with target prefixes only"),
        ({"target_prefix_bias": 1}, [" "], "is for texts with target prefixes only"),
        (
            {"target_prefix_bias": 1, "return_alternatives": True},
            ["a"],
            "is for calls without alternatives only",
        ),
    ],
)
def test_a_bad_bias_is_refused(running: Running, options, prefixes, message):
    failure = failure_of(lambda: translate(running, ["a"], prefixes, options=options))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == f"options.target_prefix_bias: {message}"
