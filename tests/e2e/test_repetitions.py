"""Translations that would repeat themselves, since the model does not know such texts."""

from pathlib import Path

import pytest
from attendant.v1.translation_pb2 import (
    FINISH_REASON_STOP,
    Hypothesis,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
)

from tests.support.serving import running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
# Of digital.gov, CC0 1.0.
TEXTS = [
    "Medicare.gov is the consumer website for Medicare beneficiaries, caregivers, and advocates.",
    "Stay tuned to Twitter, Facebook, and DigitalGov for forthcoming details.",
    "Help Customers Find Your Content",
    "Follow the directions on DigitalGov to join these Communities.",
]


@pytest.fixture(scope="module")
def running(loop, settings):
    options = {"bundles": BUILT_IN, "models": ("en-de",), "precision": "auto"}
    with running_server(loop, settings(**options)) as server:
        yield server


def translations(running, texts, **options) -> list[Hypothesis]:
    request = TranslateRequest(texts=texts, options=TranslateOptions(**options))
    return [each.hypotheses[0] for each in running.translation.Translate(request).translations]


def has_loop(hypothesis: Hypothesis) -> bool:
    ids = [token.id for token in hypothesis.tokens]
    return any(
        ids[i : i + n] == ids[i + n : i + 2 * n] == ids[i + 2 * n : i + 3 * n]
        for n in range(1, 8)
        for i in range(len(ids) - 3 * n + 1)
    )


def test_greedy_search_goes_on_with_other_words_and_says_so(running):
    unguarded = translations(running, TEXTS, repetition_guard=False, return_tokens=True)
    assert all(map(has_loop, unguarded))
    assert not any(each.num_avoided_repetitions for each in unguarded)
    guarded = translations(running, TEXTS, return_tokens=True)
    assert not any(map(has_loop, guarded))
    for each in guarded:
        assert each.num_avoided_repetitions >= 1
        assert each.finish_reason == FINISH_REASON_STOP


def test_a_text_of_several_sentences_counts_all_of_them(running):
    alone = sum(each.num_avoided_repetitions for each in translations(running, TEXTS[:2]))
    [joined] = translations(running, [" ".join(TEXTS[:2])])
    assert joined.num_avoided_repetitions == alone


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_takes_nothing_back_and_ends_with_the_same_text(running, text):
    [whole] = translations(running, [text])
    answers = list(running.translation.StreamTranslate(StreamTranslateRequest(text=text)))
    assert "".join(answer.delta for answer in answers) == whole.text
    [streamed] = answers[-1].translation.hypotheses
    assert streamed.text == whole.text
    assert streamed.num_avoided_repetitions == whole.num_avoided_repetitions
