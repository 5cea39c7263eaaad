"""Embeddings in the form of OpenAI."""

import base64
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from attendant_server.application.application import Application
from attendant_server.application.embedding import EmbeddingRequest
from attendant_server.field_names import renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.json_routes import Ids
from attendant_server.http.number_lists import VALUES_WRITTEN_FOR_ONE, number_list
from attendant_server.http.texts import texts_of
from attendant_server.text_faults import without_faults

NO_TOKENS = (
    "must be a text or a list of texts: token ids are those of another tokenizer (with LangChain, "
    "set check_embedding_ctx_length=False)"
)
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class EmbeddingsRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Texts to embed."""

    input: NonEmpty | Annotated[list[NonEmpty | int | Ids], msgspec.Meta(min_length=1)]
    """A text, or a list of texts."""
    model: str = ""
    """``name`` or ``name/version``; empty for the default model."""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    """Number of first values of each vector to keep."""
    user: str | None = None
    """Without effect."""


class Embedding(msgspec.Struct, kw_only=True):
    """The vector of one text, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """The numbers, or with ``encoding_format`` base64 their float32 in little-endian order."""


class Usage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The tokens that the model read and wrote."""

    prompt_tokens: int
    completion_tokens: int | None = None
    """None for embeddings."""
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct, kw_only=True):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class EmbeddingsHandler:
    """Embeds texts with all embedding models."""

    def __init__(self, application: Application) -> None:
        self._embedder, self._jobs = application.embedder, application.jobs

    async def __call__(self, request: EmbeddingsRequest, call: Call) -> bytes:
        """One vector for each text. A bad text fails the call."""
        texts, names = texts_of(request.input, "input", NO_TOKENS)
        with renamed_fields(names):
            answer = await self._embedder.embed(
                EmbeddingRequest(
                    texts=texts,
                    model=request.model or call.model,
                    normalize=True,  # as OpenAI's are, whatever the model says
                    dimensions=request.dimensions,
                ),
                None,
            )
            without_faults(answer.texts)
        numbers = answer.vectors.numbers

        def response() -> bytes:
            return _encoded(numbers, request.encoding_format, answer.model, answer.num_input_tokens)

        return await self._jobs.run_for(numbers.size // VALUES_WRITTEN_FOR_ONE, response)


def _encoded(numbers: NDArray[Any], encoding_format: str, model: str, num_tokens: int) -> bytes:
    def content(row: NDArray[Any]) -> Any:
        if encoding_format == "base64":
            return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()
        return number_list(row)

    data = [
        Embedding(index=index, embedding=content(row))
        for index, row in enumerate(np.asarray(numbers, np.float32))
    ]
    usage = Usage(prompt_tokens=num_tokens, total_tokens=num_tokens)
    return msgspec.json.encode(EmbeddingsResponse(data=data, model=model, usage=usage))
