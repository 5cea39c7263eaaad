"""The asyncio client; `make clients` generates the synchronous one from this module.

Sends calls and waits for their answers; `messages` builds the requests and parses the responses.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload

import grpc

from attendant_client import messages, results
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
    ClassifyOptions,
    ConnectionOptions,
    EmbedOptions,
    Errors,
    ScoreOptions,
    StreamOptions,
    TextOptions,
    TokenizeOptions,
    TranslateOptions,
)
from attendant_client.retries import RetryPolicy

Result = TypeVar("Result")


class AsyncClient:
    """A connection to one server for asyncio; make it inside the event loop that uses it.

        async with AsyncClient("localhost:50051") as client:
            translation = await client.translate("The dog is barking.", model="en-de")
            print(translation.text)

    `target` is the server's "host:port", or "grpcs://host:port" for TLS. `timeout_seconds` is the
    default time limit of a call, over all its attempts. `retry` decides which failures are retried.
    `metadata` is sent with every call. A call is cancelled with its task. TLS and the token are the
    options of ConnectionOptions.

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
        self._channel = connect(target, **connection).open(grpc.aio)

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
    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        errors: Literal["raise"] = "raise",
        timeout_seconds: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> results.FloatArray: ...
    @overload
    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        errors: Literal["return"],
        timeout_seconds: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> results.Embeddings: ...
    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        errors: Errors = "raise",
        timeout_seconds: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> results.FloatArray | results.Embeddings:
        """Return float32 vectors, shape (texts, dimension), or (dimension,) for one string.

        With `errors="return"` the result is an Embeddings, which has one EmbedResult for each text.
        The other options are those of EmbedOptions.
        """
        call = messages.embed(texts, errors=errors, **options)
        return messages.vectors_of(texts, errors, await self._call(call, timeout_seconds))

    @overload
    async def embed_tokens(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        layers: Sequence[int] = (),
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TextOptions],
    ) -> results.TokenEmbeddings: ...
    @overload
    async def embed_tokens(
        self,
        texts: Sequence[str],
        layers: Sequence[int] = (),
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TextOptions],
    ) -> list[results.TokenEmbeddings]: ...
    async def embed_tokens(
        self,
        texts: str | Sequence[str],
        layers: Sequence[int] = (),
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TextOptions],
    ) -> results.TokenEmbeddings | list[results.TokenEmbeddings]:
        """Return a float32 vector for every token, from the given layers or else from the last one.

        Without layers, a model of late interaction, such as ColBERT, gives its vectors of tokens.
        Layer 0 is the output of the input embeddings; negative numbers count from the end, -1 is
        the last layer.
        """
        call = messages.embed_tokens(texts, layers, **options)
        return messages.one_or_all(texts, await self._call(call, timeout_seconds))

    @overload
    async def fill_mask(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        top_k: int = 5,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TextOptions],
    ) -> results.FilledText: ...
    @overload
    async def fill_mask(
        self,
        texts: Sequence[str],
        top_k: int = 5,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TextOptions],
    ) -> list[results.FilledText]: ...
    async def fill_mask(
        self,
        texts: str | Sequence[str],
        top_k: int = 5,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TextOptions],
    ) -> results.FilledText | list[results.FilledText]:
        """Return the `top_k` likeliest tokens for every "[MASK]"."""
        call = messages.fill_mask(texts, top_k, **options)
        return messages.one_or_all(texts, await self._call(call, timeout_seconds))

    @overload
    async def classify(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        text_pairs: str | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> results.ClassifiedText: ...
    @overload
    async def classify(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> list[results.ClassifiedText]: ...
    async def classify(
        self,
        texts: str | Sequence[str],
        text_pairs: str | Sequence[str] | None = None,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> results.ClassifiedText | list[results.ClassifiedText]:
        """Return the scores of a model's labels; `text_pairs` are the second texts of pairs."""
        call = messages.classify(texts, text_pairs, **options)
        return messages.one_or_all(texts, await self._call(call, timeout_seconds))

    async def similarity(
        self,
        a: str,
        b: str,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> float:
        """Return the cosine between the embeddings of two texts, -1 to 1."""
        return messages.cosine(await self.embed([a, b], timeout_seconds=timeout_seconds, **options))

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
        """Return all models of the server, including models that are still loading."""
        return await self._call(messages.list_models(), timeout_seconds)

    async def model(self, name: str = "", *, timeout_seconds: float | None = None) -> results.Model:
        """Return the description of a model: "name" or "name/version", or "" for the only one."""
        return await self._call(messages.get_model(name), timeout_seconds)

    async def health(self, service: str = "", *, timeout_seconds: float | None = None) -> str:
        """Return "serving", "not_serving" or "unknown" for a service, or for the whole server."""
        return await self._call(messages.health(service), timeout_seconds)

    async def _call(self, call: Call[Result], timeout_seconds: float | None) -> Result:
        attempts = self._defaults.attempts(timeout_seconds)
        send = self._channel.unary_unary(
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
