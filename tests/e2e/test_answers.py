"""Responses built on a pool thread equal those built on the event loop."""

from collections.abc import Callable
from typing import Any

import pytest
from attendant.v1.embedding_pb2 import EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateRequest,
    TranslationPair,
)
from attendant_server.application import jobs as jobs_module
from attendant_server.application.jobs import JobRunner

from tests.support.serving import Running

TEXTS = ["The dog sees the king.", ""]
PAIRS = [TranslationPair(source=text, target="Der Hund sieht den König.") for text in TEXTS]
CALLS: dict[str, Callable[[Running], Any]] = {
    "Translate": lambda r: r.translation.Translate(TranslateRequest(texts=TEXTS)),
    "StreamTranslate": lambda r: list(
        r.translation.StreamTranslate(StreamTranslateRequest(text=TEXTS[0]))
    )[-1],
    "Score": lambda r: r.translation.Score(ScoreRequest(pairs=PAIRS)),
    "EmbedTokens": lambda r: r.embedding.EmbedTokens(EmbedTokensRequest(texts=TEXTS)),
    "FillMask": lambda r: r.embedding.FillMask(FillMaskRequest(texts=["The [MASK] sees.", ""])),
    "Tokenize": lambda r: r.models.Tokenize(TokenizeRequest(texts=TEXTS, model="tiny-bert")),
}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The results of all work on threads from now on."""
    original, results = JobRunner.run, list[Any]()

    async def run(jobs: JobRunner, work: Callable[[], Any]) -> Any:
        results.append(await original(jobs, work))
        return results[-1]

    monkeypatch.setattr(JobRunner, "run", run)
    return results


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_long_answer_is_built_off_the_event_loop_and_is_the_same(
    running: Running,
    call: Callable[[Running], Any],
    built: list[Any],
    monkeypatch: pytest.MonkeyPatch,
):
    expected = call(running)
    monkeypatch.setattr(jobs_module, "MAX_INLINE_TOKENS", 1)
    answer = call(running)
    # After the application's part, if that is long as well. Translations are written in place.
    assert built[-1] in (answer, [None] * len(TEXTS))
    if hasattr(answer, "timings"):
        answer.timings.CopyFrom(expected.timings)
    assert answer == expected


def test_the_masks_of_long_texts_are_found_off_the_event_loop(running: Running, built: list[Any]):
    texts = ["The [MASK] sees the dog."] * (jobs_module.MAX_INLINE_TOKENS // 4)
    running.embedding.FillMask(FillMaskRequest(texts=texts, top_k=1))
    found = [result for result in built if isinstance(result, list) and len(result) == len(texts)]
    assert any(hasattr(each[0], "masks") and hasattr(each[0], "tokens") for each in found)
