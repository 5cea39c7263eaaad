"""LanguageService: DetectLanguage."""

from attendant.v1 import language_pb2, language_pb2_grpc

from attendant_server.application.application import Application
from attendant_server.application.language_detection import DetectionAnswer, DetectionRequest
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.messages import fault, given


class LanguageService(language_pb2_grpc.LanguageServiceServicer):
    """Detects the languages of texts."""

    def __init__(self, application: Application) -> None:
        self._detector, self._jobs = application.language_detector, application.jobs

    async def DetectLanguage(
        self, request: language_pb2.DetectLanguageRequest, context: Context
    ) -> language_pb2.DetectLanguageResponse:
        """The likeliest languages of each text."""
        answer = await self._detector.detect(
            DetectionRequest(
                texts=list(request.texts),
                languages=list(request.languages),
                max_results=given(request, "max_results"),
            )
        )
        return await self._jobs.run_for(answer.size, lambda: _response(answer))


def _response(answer: DetectionAnswer) -> language_pb2.DetectLanguageResponse:
    response = language_pb2.DetectLanguageResponse()
    for found in answer.texts:
        result = response.results.add()
        if isinstance(found, InvalidRequest):
            result.error.CopyFrom(fault(found))
            continue
        for each in found:
            result.languages.add(language=each.language, probability=each.probability)
    return response
