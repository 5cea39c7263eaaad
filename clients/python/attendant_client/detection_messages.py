"""Builds the requests of detections of languages, and parses the responses. Knows no channel."""

from collections.abc import Sequence

from attendant.v1 import language_pb2

from attendant_client.calls import TextCall, sendable
from attendant_client.detection_results import DetectedLanguages, LanguageProbability
from attendant_client.errors import TextError
from attendant_client.messages import text_list


def detect_language(
    texts: str | Sequence[str], *, languages: Sequence[str], max_results: int | None
) -> TextCall[DetectedLanguages]:
    """Build a DetectLanguage call."""
    sent, faults = sendable(text_list(texts))
    request = language_pb2.DetectLanguageRequest(
        texts=sent, languages=languages, max_results=max_results
    )
    return TextCall(
        "/attendant.v1.LanguageService/DetectLanguage",
        request,
        language_pb2.DetectLanguageResponse,
        _parse,
        faults=faults,
    )


def _parse(
    response: language_pb2.DetectLanguageResponse,
    errors: Sequence[TextError | None],
    request_id: str,
) -> list[DetectedLanguages]:
    return [
        DetectedLanguages(
            tuple(LanguageProbability(each.language, each.probability) for each in item.languages),
            error,
        )
        for item, error in zip(response.results, errors, strict=True)
    ]
