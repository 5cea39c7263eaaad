"""The part for embeddings; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

from attendant_client import (
    embedding_messages,
    embedding_results,
    messages,
    results,
    sparse_vectors,
)
from attendant_client.calls import TextCall
from attendant_client.options import (
    Chunking,
    DataType,
    LayerCombination,
    OffsetUnit,
    Pooling,
    Role,
    Span,
    TextNormalization,
    Truncation,
    VectorUnit,
)

Result = TypeVar("Result", bound=results.TextResult)


class AsyncEmbeddingCalls(ABC):
    """The methods of a client for the embedding service."""

    @overload
    async def embed(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        model: str = "",
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        data_type: DataType = "float32",
        chunking: Chunking | None = None,
        max_chunk_tokens: int | None = None,
        average_chunks: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.Embedding: ...
    @overload
    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        data_type: DataType = "float32",
        chunking: Chunking | None = None,
        max_chunk_tokens: int | None = None,
        average_chunks: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.Embeddings: ...
    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "",
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        data_type: DataType = "float32",
        chunking: Chunking | None = None,
        max_chunk_tokens: int | None = None,
        average_chunks: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.Embedding | embedding_results.Embeddings:
        """Return a vector for each text: `embed(texts).vectors` is an array (texts, dimension).

        `pooling`: "mean", "cls", "max", or one of the model's `additional_poolings`; the bundle's
        choice if absent.
        `normalize`: whether vectors are scaled to length 1; the bundle's choice if absent.
        `dimensions`: number of first values of each vector to keep; all if absent. One for which
        the model was not trained needs `force_dimensions`.
        `prompt_name`: the name of the prompt that the model reads before every text, one of the
        model's `prompts`, or "" for none; the model's `default_prompt` if absent. `prompt` gives
        its text instead.
        `data_type`: the number format of the vectors, "float32", "float16", "int8", "uint8" or
        "binary"; see `Embedding`.
        `chunking`: "sentences" for a vector of each sentence, or "tokens" for one of as many
        sentences as have `max_chunk_tokens` together; see `Embedding`. With `average_chunks`, a
        text has one vector, their average weighted by tokens.
        """
        call = embedding_messages.embed(
            texts,
            model=model,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            prompt_name=prompt_name,
            prompt=prompt,
            data_type=data_type,
            chunking=chunking,
            max_chunk_tokens=max_chunk_tokens,
            average_chunks=average_chunks,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return found[0] if isinstance(texts, str) else embedding_results.Embeddings(found)

    @overload
    async def embed_tokens(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        layers: Sequence[int] = (),
        *,
        model: str = "",
        role: Role | None = None,
        data_type: DataType = "float32",
        layer_combination: LayerCombination | None = None,
        unit: VectorUnit | None = None,
        spans: Sequence[Span] | None = None,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.TokenEmbeddings: ...
    @overload
    async def embed_tokens(
        self,
        texts: Sequence[str],
        layers: Sequence[int] = (),
        *,
        model: str = "",
        role: Role | None = None,
        data_type: DataType = "float32",
        layer_combination: LayerCombination | None = None,
        unit: VectorUnit | None = None,
        spans: Sequence[Sequence[Span]] | None = None,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[embedding_results.TokenEmbeddings]: ...
    async def embed_tokens(
        self,
        texts: str | Sequence[str],
        layers: Sequence[int] = (),
        *,
        model: str = "",
        role: Role | None = None,
        data_type: DataType = "float32",
        layer_combination: LayerCombination | None = None,
        unit: VectorUnit | None = None,
        spans: Sequence[Span] | Sequence[Sequence[Span]] | None = None,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.TokenEmbeddings | results.Results[embedding_results.TokenEmbeddings]:
        """Return a vector for every token, word or span, from the given layers or the last one.

        Without layers, a model of late interaction, such as ColBERT, gives its vectors of tokens.
        Layer 0 is the output of the input embeddings; negative numbers count from the end, -1 is
        the last layer.
        `role`: "query" or "document", for vectors of late interaction as the package of the model
        gives them: with its marker, the expansion of queries, and without the tokens that
        documents skip. None reads a text as it is.
        `data_type`: as for `embed`.
        `layer_combination`: one vector of each token from several layers, their "mean" or their
        "concatenation".
        `unit`: vectors of "tokens" (default), of "words" or of "spans". That of a word or a span is
        the mean of those of its tokens.
        `spans`: the start and end (exclusive) of each span; for several texts, those of each text.
        """
        call = embedding_messages.embed_tokens(
            texts,
            layers,
            model=model,
            role=role,
            data_type=data_type,
            layer_combination=layer_combination,
            unit=unit,
            spans=spans,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @overload
    async def embed_sparse(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        model: str = "",
        max_active_dims: int | None = None,
        return_tokens: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.SparseEmbedding: ...
    @overload
    async def embed_sparse(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        max_active_dims: int | None = None,
        return_tokens: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[embedding_results.SparseEmbedding]: ...
    async def embed_sparse(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "",
        max_active_dims: int | None = None,
        return_tokens: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.SparseEmbedding | results.Results[embedding_results.SparseEmbedding]:
        """Return a sparse vector for each text, from a SPLADE model.

        `max_active_dims`: tokens that a vector keeps, those with the greatest weights; the bundle's
        choice if absent, mostly all.
        `return_tokens`: whether results have the tokens in addition to their ids.
        """
        call = sparse_vectors.embed_sparse(
            texts,
            model=model,
            max_active_dims=max_active_dims,
            return_tokens=return_tokens,
            text_normalization=text_normalization,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...
