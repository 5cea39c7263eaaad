"""The asyncio client; `make clients` generates the synchronous one from this module.

Sends calls and waits for their answers; `messages` builds the requests and parses the responses.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc

from attendant_client import messages, model_messages, results
from attendant_client.asyncio_embedding import AsyncEmbeddingCalls
from attendant_client.asyncio_streams import AsyncTranslationStream
from attendant_client.closing import AsyncClosing
from attendant_client.connection import (
    DEFAULT_RETRY,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT_SECONDS,
    CallDefaults,
    connect,
)
from attendant_client.errors import call_error
from attendant_client.messages import Call
from attendant_client.options import (
    ConnectionOptions,
    ScoreOptions,
    StreamOptions,
    TokenizeOptions,
    TranslateOptions,
)
from attendant_client.retries import RetryPolicy

Result = TypeVar("Result")


class AsyncClient(AsyncEmbeddingCalls):
    """A client for asyncio; make it inside the event loop that uses it.

        async with AsyncClient("localhost:50051") as client:
            translation = await client.translate("The dog is barking.", model="en-de")
            print(translation.text)

    `target` is the server's "host:port", or "grpcs://host:port" for TLS. Calls are spread over all
    servers that report SERVING if the host is a name with several addresses, or the target a list
    of IP addresses, such as "10.0.0.1:50051,10.0.0.2:50051"; a list cannot have TLS.
    `timeout_seconds` is the default time limit of a call, over all its attempts. `retry` decides
    which failures are retried. `metadata` is sent with every call. TLS and the token are the
    options of ConnectionOptions. A call is cancelled with its task.

    A method that takes texts returns one result for a string. For a sequence of strings it returns
    a list of results in the same order. All methods raise CallError when the call fails, TextError
    when one of its texts fails, and ValueError for a bad value of an option.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy = DEFAULT_RETRY,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        **connection: Unpack[ConnectionOptions],
    ) -> None:
        self._closing = AsyncClosing()
        token = connection.get("token")
        self._defaults = CallDefaults(
            timeout_seconds, retry, tuple(metadata), self._closing.is_closed, token
        )
        self._channel, self._any_server = connect(target, **connection).open(grpc.aio)

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

    @overload
    async def translate(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TranslateOptions],
    ) -> results.Translation: ...
    @overload
    async def translate(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TranslateOptions],
    ) -> list[results.Translation]: ...
    async def translate(
        self,
        texts: str | Sequence[str],
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TranslateOptions],
    ) -> results.Translation | list[results.Translation]:
        """Translate texts; the options are those of TranslateOptions."""
        call = messages.translate(texts, **options)
        return messages.one_or_all(texts, await self._call(call, timeout_seconds))

    def stream_translate(
        self,
        text: str,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncTranslationStream:
        """Translate one text piece by piece; the options are those of StreamOptions.

        The call starts when the first piece is requested.
        """
        call = messages.stream_translate(text, **options)
        send = self._channel.unary_stream(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response_type.FromString,
        )

        return AsyncTranslationStream(call, send, self._defaults, self._closing, timeout_seconds)

    async def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        length_penalty: float | None = None,
        timeout_seconds: float | None = None,
        **options: Unpack[ScoreOptions],
    ) -> list[results.TranslationScore]:
        """Return the model's log-probabilities of (source, translation) pairs."""
        call = messages.score(pairs, length_penalty=length_penalty, **options)
        return await self._call(call, timeout_seconds)

    @overload
    async def tokenize(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TokenizeOptions],
    ) -> results.Tokenization: ...
    @overload
    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TokenizeOptions],
    ) -> list[results.Tokenization]: ...
    async def tokenize(
        self,
        texts: str | Sequence[str],
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TokenizeOptions],
    ) -> results.Tokenization | list[results.Tokenization]:
        """Return the tokens that a model would read; the options are those of TokenizeOptions."""
        call = messages.tokenize(texts, **options)
        return messages.one_or_all(texts, await self._call(call, timeout_seconds))

    async def models(self, *, timeout_seconds: float | None = None) -> list[results.ModelInfo]:
        """Return all models of the server, including models that are still loading.

        If the target has several servers, one of them answers, whether it is serving or not.
        """
        return await self._call(model_messages.list_models(), timeout_seconds, self._any_server)

    async def model(self, name: str = "", *, timeout_seconds: float | None = None) -> results.Model:
        """Return the description of a model: "name" or "name/version", or "" for the only one.

        If the target has several servers, one of them answers, whether it is serving or not.
        """
        return await self._call(model_messages.get_model(name), timeout_seconds, self._any_server)

    async def load_model(
        self, name: str, *, timeout_seconds: float | None = None
    ) -> results.ModelInfo:
        """Let the server load a bundle of its folder: "name/version", or "name" for the highest.

        Returns when the model is ready. Loading goes on if the timeout passes first. The server
        must allow it (``--model-control on``), and the caller needs permission. If the target has
        several servers, only one of them loads the bundle.
        """
        return await self._call(model_messages.load_model(name), timeout_seconds, self._any_server)

    async def unload_model(self, name: str, *, timeout_seconds: float | None = None) -> str:
        """Let the server stop serving "name/version", or the only version of "name".

        Returns the full name once the calls that use the model have ended. The conditions are
        those of `load_model`. The call is retried only if the server has refused to begin it.
        """
        return await self._call(
            model_messages.unload_model(name), timeout_seconds, self._any_server
        )

    async def health(self, service: str = "", *, timeout_seconds: float | None = None) -> str:
        """Return "serving", "not_serving" or "unknown" for a service, or for the whole server.

        If the target has several servers, the answer is that of one of them.
        """
        return await self._call(model_messages.health(service), timeout_seconds, self._any_server)

    async def _call(
        self, call: Call[Result], timeout_seconds: float | None, channel: Any = None
    ) -> Result:
        attempts = self._defaults.attempts(timeout_seconds, call.is_idempotent)
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
                        metadata=self._defaults.call_metadata(),
                    )
            except grpc.RpcError as error:
                await self._closing.wait(attempts.wait_seconds_after(call_error(error)))
            else:
                attempts.record_success()
                return call.parse(response)
