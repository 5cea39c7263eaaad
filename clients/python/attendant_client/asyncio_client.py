"""The asyncio client; `make clients` generates the synchronous one from this module.

Sends calls and waits for their answers; `messages` builds the requests.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from attendant_client import model_messages, model_results
from attendant_client.asyncio_bulk import AsyncBulkCalls
from attendant_client.asyncio_bulk_results import AsyncBulkResults
from attendant_client.asyncio_comparison import AsyncComparisonCalls
from attendant_client.asyncio_detection import AsyncDetectionCalls
from attendant_client.asyncio_embedding import AsyncEmbeddingCalls
from attendant_client.asyncio_generation import AsyncGenerationCalls
from attendant_client.asyncio_prediction import AsyncPredictionCalls
from attendant_client.asyncio_scoring import AsyncScoringCalls
from attendant_client.asyncio_streams import (
    AsyncGenerationStream,
    AsyncTextStream,
    AsyncTranslationStream,
)
from attendant_client.asyncio_translation import AsyncTranslationCalls
from attendant_client.attention_messages import get_attention
from attendant_client.attention_results import Attention
from attendant_client.bulk_calls import BulkCall
from attendant_client.bulk_input import AsyncTexts
from attendant_client.calls import Call, CallSplitter, TextCall
from attendant_client.closing import AsyncClosing
from attendant_client.connection import (
    DEFAULT_RETRY,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT_SECONDS,
    CallDefaults,
    connect,
)
from attendant_client.errors import CallTooLargeError, call_error
from attendant_client.generation_results import Generation
from attendant_client.options import FilePath, OffsetUnit, TextNormalization, Token
from attendant_client.results import Results, TextResult, Translation
from attendant_client.retries import RetryPolicy

Value = TypeVar("Value")
Result = TypeVar("Result", bound=TextResult)
Stream = TypeVar("Stream", bound=AsyncTextStream[Any])


class AsyncClient(
    AsyncTranslationCalls,
    AsyncScoringCalls,
    AsyncDetectionCalls,
    AsyncGenerationCalls,
    AsyncEmbeddingCalls,
    AsyncPredictionCalls,
    AsyncComparisonCalls,
    AsyncBulkCalls,
):
    """A client for asyncio; make it inside the event loop that uses it.

        async with AsyncClient("localhost:50051") as client:
            translation = await client.translate("The dog is barking.", model="en-de")
            print(translation.text)

    `target` is the server's "host:port", or "grpcs://host:port" for TLS. Calls are spread over all
    servers that report SERVING if the host is a name with several addresses, or the target a list
    of IP addresses, such as "10.0.0.1:50051,10.0.0.2:50051"; a list cannot have TLS.
    `timeout_seconds` is the default time limit of a call, over all its attempts. `retry` decides
    which failures are retried. `metadata` is sent with every call. A call is cancelled with its
    task.

    TLS and authentication:
    `tls`: whether the connection has TLS; if absent, it has if the target begins with "grpcs://"
    or one of the files is given.
    `tls_ca`: PEM file of the authorities that may issue the server's certificate; if absent,
    those that gRPC brings along.
    `tls_cert`, `tls_key`: PEM files of the client's own certificate and key, for servers that ask
    for one.
    `token`: an API key or a JSON Web Token, or a function that returns the current one. It is
    called before each attempt of a call and must not block.
    `allow_plain_token`: send the token to another machine even without TLS.

    A method that takes texts returns one result for a string. For a sequence of strings it returns
    Results: a list of results in the same order. The error of a text is in its result;
    `raise_for_errors()` of one result or of all raises it. More texts than the server takes in one
    call are sent in several calls, one after the other.

    These options are common to the methods:
    `model`: "name" or "name/version"; empty for the only one that fits.
    `truncation`: "refuse" a text that is too long (default), or drop tokens at its end ("right")
    or its beginning ("left").
    `text_normalization`: whether texts are read as they are ("none") or normalized ("standard");
    the model's default if absent.
    `offset_unit`: the unit of offsets in texts: "code_points" (default), which are indices of a
    `str`, "utf8_bytes" or "utf16_units".
    `timeout_seconds`: time limit of each call to the server, over all its attempts.
    `request_id`: the id of the calls in the server's log, 1 to 128 letters, digits and
    _ . : / + = -; by default a new one. Errors and reports of calls have it.

    All methods raise CallError when a whole call fails, and ValueError for a bad value of an
    option.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy = DEFAULT_RETRY,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        tls: bool | None = None,
        tls_ca: FilePath | None = None,
        tls_cert: FilePath | None = None,
        tls_key: FilePath | None = None,
        token: Token | None = None,
        allow_plain_token: bool = False,
    ) -> None:
        self._closing = AsyncClosing()
        self._splitter = CallSplitter()
        self._defaults = CallDefaults(
            timeout_seconds, retry, tuple(metadata), self._closing.is_closed, token
        )
        connection = connect(
            target,
            tls=tls,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            token=token,
            allow_plain_token=allow_plain_token,
        )
        self._channel, self._any_server = connection.open(grpc.aio)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Running, waiting and later calls raise CallCancelledError."""
        self._closing.close()
        await self._channel.close()
        await self._any_server.close()

    async def models(
        self, *, timeout_seconds: float | None = None, request_id: str | None = None
    ) -> list[model_results.ModelInfo]:
        """Return all models of the server, including models that are still loading.

        If the target has several servers, one of them answers, whether it is serving or not.
        """
        call = model_messages.list_models()
        return await self._call(call, timeout_seconds, request_id, self._any_server)

    async def model(
        self,
        name: str = "",
        *,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> model_results.Model:
        """Return the description of a model: "name" or "name/version", or "" for the only one.

        If the target has several servers, one of them answers, whether it is serving or not.
        """
        call = model_messages.get_model(name)
        return await self._call(call, timeout_seconds, request_id, self._any_server)

    async def attention(
        self,
        text: str,
        target: str | None = None,
        *,
        model: str = "",
        source_language: str = "",
        target_language: str = "",
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Attention:
        """Return the attention weights of all layers and heads, for study.

        `target`: the translation of the text; the model's own one if absent. An embedding model has
        none. Both texts have at most 128 tokens. Needs a model with `Model.has_attention`.
        `source_language`, `target_language`: as for `translate`.
        """
        call = get_attention(
            text,
            target,
            model=model,
            source_language=source_language,
            target_language=target_language,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
        )
        return await self._call(call, timeout_seconds, request_id)

    async def load_model(
        self, name: str, *, timeout_seconds: float | None = None, request_id: str | None = None
    ) -> model_results.ModelInfo:
        """Let the server load a bundle of its folder: "name/version", or "name" for the highest.

        Returns when the model is ready. Loading goes on if the timeout passes first. The server
        must allow it (``--model-control on``), and the caller needs permission. If the target has
        several servers, only one of them loads the bundle.
        """
        call = model_messages.load_model(name)
        return await self._call(call, timeout_seconds, request_id, self._any_server)

    async def unload_model(
        self, name: str, *, timeout_seconds: float | None = None, request_id: str | None = None
    ) -> str:
        """Let the server stop serving "name/version", or the only version of "name".

        Returns the full name once the calls that use the model have ended. The conditions are
        those of `load_model`. The call is retried only if the server has refused to begin it.
        """
        call = model_messages.unload_model(name)
        return await self._call(call, timeout_seconds, request_id, self._any_server)

    async def health(
        self,
        service: str = "",
        *,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> str:
        """Return "serving", "not_serving" or "unknown" for a service, or for the whole server.

        If the target has several servers, the answer is that of one of them.
        """
        call = model_messages.health(service)
        return await self._call(call, timeout_seconds, request_id, self._any_server)

    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> Results[Result]:
        found: list[Result] = []
        request_id = self._defaults.request_id(request_id)
        for part in self._splitter.parts(call):
            found += await self._part(part, timeout_seconds, request_id)
        return Results(found)

    async def _part(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str
    ) -> list[Result]:
        """The results of a call; one that is too large is sent again in parts."""
        try:
            return await self._call(call.rpc(), timeout_seconds, request_id)
        except CallTooLargeError as error:
            if call.num_texts == 1:
                return call.failed(error)
            parts = self._splitter.smaller(call, error)
        found: list[Result] = []
        for part in parts:
            found += await self._part(part, timeout_seconds, request_id)
        return found

    def _stream(
        self,
        call: Call[Translation | None],
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> AsyncTranslationStream:
        return self._opened(AsyncTranslationStream, call, timeout_seconds, request_id)

    def _generation_stream(
        self,
        call: Call[Generation | None],
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> AsyncGenerationStream:
        return self._opened(AsyncGenerationStream, call, timeout_seconds, request_id)

    def _opened(
        self,
        kind: type[Stream],
        call: Call[Any],
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> Stream:
        send = self._channel.unary_stream(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response_type.FromString,
        )
        request_id = self._defaults.request_id(request_id)
        return kind(call, send, self._defaults, self._closing, timeout_seconds, request_id)

    def _bulk(
        self,
        call: BulkCall[Result],
        texts: AsyncTexts,
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> AsyncBulkResults[Result]:
        send = self._channel.stream_stream(
            call.method,
            request_serializer=call.request_type.SerializeToString,
            response_deserializer=call.response_type.FromString,
        )
        request_id = self._defaults.request_id(request_id)
        return AsyncBulkResults(
            call, texts, send, self._defaults, self._closing, timeout_seconds, request_id
        )

    async def _call(
        self,
        call: Call[Value],
        timeout_seconds: float | None,
        request_id: str | None,
        channel: Any = None,
    ) -> Value:
        attempts = self._defaults.attempts(timeout_seconds, call.is_idempotent)
        request_id = self._defaults.request_id(request_id)
        send = (channel or self._channel).unary_unary(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response_type.FromString,
        )
        while True:
            try:
                with self._closing.guard():
                    response = await send(
                        call.request,
                        timeout=attempts.remaining_seconds(),
                        metadata=self._defaults.call_metadata(request_id, call.request),
                    )
            except grpc.RpcError as error:
                failure = call_error(error, request_id)
                await self._closing.wait(attempts.wait_seconds_after(failure))
            else:
                attempts.record_success()
                return call.parse(response, request_id)
