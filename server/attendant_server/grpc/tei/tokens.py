"""The services Tokenize and Info of TEI."""

from collections.abc import AsyncIterator
from functools import partial

from attendant_vendored.tei import tei_pb2, tei_pb2_grpc

from attendant_server import __version__, tei_requests
from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.models import TokenizationRequest
from attendant_server.application.offset_units import OffsetUnit
from attendant_server.field_names import renamed_fields
from attendant_server.grpc.context import Context
from attendant_server.grpc.tei.messages import (
    answer_stream,
    check_no_prompt,
    chosen_model,
)
from attendant_server.settings import Settings
from attendant_server.tei_requests import DTYPES, INPUTS, model_type, simple_tokens
from attendant_server.text_faults import without_faults
from attendant_server.tokenized_text import TokenizedText

MODEL_TYPES = {
    tei_requests.EMBEDDING: tei_pb2.MODEL_TYPE_EMBEDDING,
    tei_requests.CLASSIFIER: tei_pb2.MODEL_TYPE_CLASSIFIER,
    tei_requests.RERANKER: tei_pb2.MODEL_TYPE_RERANKER,
}


class TokenizeService(tei_pb2_grpc.TokenizeServicer):
    """Shows how embedding models read texts."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._models, self._jobs = application.models, application.jobs

    async def Tokenize(
        self, request: tei_pb2.EncodeRequest, context: Context
    ) -> tei_pb2.EncodeResponse:
        """The tokens of a text, with offsets in bytes of UTF-8."""
        return await self._tokenize(chosen_model(context), request, context.time_remaining())

    async def TokenizeStream(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, requests: AsyncIterator[tei_pb2.EncodeRequest], context: Context
    ) -> None:
        """The tokens of the text of each request."""
        answer = partial(self._tokenize, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def Decode(
        self, request: tei_pb2.DecodeRequest, context: Context
    ) -> tei_pb2.DecodeResponse:
        """The text of tokens."""
        return await self._decode(chosen_model(context), request, context.time_remaining())

    async def DecodeStream(  # type: ignore[override]
        self, requests: AsyncIterator[tei_pb2.DecodeRequest], context: Context
    ) -> None:
        """The text of the tokens of each request."""
        answer = partial(self._decode, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def _tokenize(
        self, model: str, request: tei_pb2.EncodeRequest, seconds_left: float | None
    ) -> tei_pb2.EncodeResponse:
        check_no_prompt(request)
        key = self._models.find(model, ModelKind.EMBEDDING).key
        with renamed_fields(INPUTS):
            answer = await self._models.tokenize(TokenizationRequest([request.inputs], key))
            [found] = without_faults(answer.texts)
        return await self._jobs.run_for(answer.size, lambda: _encode_response(request, found))

    async def _decode(
        self, model: str, request: tei_pb2.DecodeRequest, seconds_left: float | None
    ) -> tei_pb2.DecodeResponse:
        text = await self._models.decode(model, request.ids, request.skip_special_tokens)
        return tei_pb2.DecodeResponse(text=text)


def _encode_response(
    request: tei_pb2.EncodeRequest, tokens: TokenizedText
) -> tei_pb2.EncodeResponse:
    unit, response = OffsetUnit.UTF8_BYTES, tei_pb2.EncodeResponse()
    for token in simple_tokens(request.inputs, tokens, unit, request.add_special_tokens):
        response.tokens.add(**token._asdict())
    return response


class InfoService(tei_pb2_grpc.InfoServicer):
    """Describes an embedding model, and the limits of the server."""

    def __init__(self, application: Application, settings: Settings) -> None:
        self._models, self._settings = application.models, settings

    async def Info(self, request: tei_pb2.InfoRequest, context: Context) -> tei_pb2.InfoResponse:
        """The model that calls without another name get."""
        model = self._models.find(chosen_model(context), ModelKind.EMBEDDING)
        settings = self._settings
        return tei_pb2.InfoResponse(
            version=__version__,
            model_id=model.key,
            model_dtype=DTYPES.get(model.precision, model.precision),
            model_type=MODEL_TYPES[model_type(model)],
            max_concurrent_requests=settings.max_concurrent_calls,
            max_input_length=model.max_tokens,
            max_batch_tokens=settings.max_batch_tokens,
            max_client_batch_size=settings.max_texts,
            tokenization_workers=settings.num_tokenizer_threads,
        )
