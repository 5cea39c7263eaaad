"""The part for embeddings; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeVar, Unpack, overload

from attendant_client import messages, results, sparse_vectors
from attendant_client.messages import Call
from attendant_client.options import (
    ClassifyOptions,
    EmbedOptions,
    Errors,
    SparseOptions,
    TextOptions,
    TokenOptions,
)

Result = TypeVar("Result")


class AsyncEmbeddingCalls(ABC):
    """The methods of a client for the embedding service."""

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
        **options: Unpack[TokenOptions],
    ) -> results.TokenEmbeddings: ...
    @overload
    async def embed_tokens(
        self,
        texts: Sequence[str],
        layers: Sequence[int] = (),
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TokenOptions],
    ) -> list[results.TokenEmbeddings]: ...
    async def embed_tokens(
        self,
        texts: str | Sequence[str],
        layers: Sequence[int] = (),
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[TokenOptions],
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

    @overload
    async def embed_sparse(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[SparseOptions],
    ) -> results.SparseEmbedding: ...
    @overload
    async def embed_sparse(
        self,
        texts: Sequence[str],
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[SparseOptions],
    ) -> list[results.SparseEmbedding]: ...
    async def embed_sparse(
        self,
        texts: str | Sequence[str],
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[SparseOptions],
    ) -> results.SparseEmbedding | list[results.SparseEmbedding]:
        """Return a sparse vector for each text, from a SPLADE model; see SparseOptions."""
        call = sparse_vectors.embed_sparse(texts, **options)
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

    @abstractmethod
    async def _call(self, call: Call[Result], timeout_seconds: float | None) -> Result: ...
