"""BulkTranslate over the wire: order, faults, settings, back-pressure, and ends of all kinds."""

from typing import Any

from attendant.v1 import translation_pb2

from tests.support.bulk import translate_requests
from tests.support.serving import (
    TIMEOUT_SECONDS,
    TRANSLATION_MODEL,
    Running,
)

WORDS = ("the dog sees the king", "a cat", "the king", "the bird sees a dog and a cat")
TEXTS = [(str(i), f"{WORDS[i % len(WORDS)]} {i % 7}") for i in range(600)]


def bulk(running: Running, requests: Any, **options: Any) -> Any:
    return running.translation.BulkTranslate(iter(requests), timeout=TIMEOUT_SECONDS, **options)


def test_each_text_is_answered_with_its_id_in_order_and_as_by_translate(running: Running):
    responses = list(bulk(running, translate_requests(TEXTS)))
    assert [response.id for response in responses] == [text_id for text_id, _ in TEXTS]
    assert {response.model for response in responses} == {TRANSLATION_MODEL}
    found = [response.translation.hypotheses[0].text for response in responses]
    distinct = sorted({text for _, text in TEXTS})
    request = translation_pb2.TranslateRequest(texts=distinct)
    answer = running.translation.Translate(request, timeout=TIMEOUT_SECONDS)
    expected = dict(zip(distinct, [t.hypotheses[0].text for t in answer.translations], strict=True))
    assert found == [expected[text] for _, text in TEXTS]
