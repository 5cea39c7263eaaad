"""Sparse vectors of texts: weights of tokens of the vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import (
    good,
    merged,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits
from attendant_server.engine.encoder_calls import SPARSE_TOKEN_IDS, SPARSE_VECTORS, EmbedCall
from attendant_server.errors import InvalidRequest, ModelWithoutHead

WEIGHT_BYTES = 8
"""Size of the id and the weight of one token in an answer, at most."""


@dataclass(frozen=True, slots=True)
class SparseEmbeddingRequest:
    """Texts to embed. ``truncation`` and ``text_normalization`` are numbers of their
    enums, 0 for the default."""

    texts: Sequence[str]
    model: str = ""
    max_active_dims: int | None = None
    """Tokens with a weight of each text. None for the model's default."""
    return_tokens: bool = False
    """Whether an answer has the tokens in addition to their ids."""
    truncation: int = 0
    text_normalization: int = 0


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The tokens of the vocabulary that have a weight in one text, by ascending ids."""

    token_ids: NDArray[Any]
    weights: NDArray[np.float32]
    tokens: Sequence[str]
    """As the vocabulary writes them; empty unless the request wants them."""
    num_tokens: int
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseEmbeddingAnswer(Answer):
    """Vectors, or a fault, for each text, in the order of the request."""

    texts: Sequence[SparseVector | InvalidRequest]


class SparseEmbedder:
    """Embeds texts with all embedding models that have sparse vectors."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def embed(
        self, request: SparseEmbeddingRequest, seconds_left: float | None
    ) -> SparseEmbeddingAnswer:
        """One sparse vector for each text.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        model, most = self._prepare(request)
        description = model.description
        prompt = description.prompts.get(description.default_prompt, "")
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
            prompt_length=len(prompt),
        )
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        to_read = [prompt + text for text in request.texts] if prompt else request.texts
        texts = await tokenize(self._jobs, tokenization, TEXTS, to_read)
        token_ids = [text.token_ids for text in good(texts)]
        results = await model.answer(EmbedCall(token_ids, (SPARSE_VECTORS,), deadline))

        vectors = [(result[SPARSE_TOKEN_IDS], result[SPARSE_VECTORS]) for result in results]
        size = sum(min(len(weights), most) for _, weights in vectors)
        weight_bytes = WEIGHT_BYTES + TOKEN_BYTES * request.return_tokens
        self._limits.check_response("texts", size * weight_bytes)

        def build() -> list[SparseVector | InvalidRequest]:
            return merged(
                texts,
                (_greatest(*vector, most) for vector in vectors),
                lambda text, vector: SparseVector(
                    *vector,
                    model.source_tokenizer.tokens(vector[0].tolist())
                    if request.return_tokens
                    else (),
                    len(text),
                    tokenization.report(text),
                ),
            )

        return SparseEmbeddingAnswer(
            model=description.key,
            texts=await self._jobs.run_for(size, build),
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=size,
        )

    def _prepare(self, request: SparseEmbeddingRequest) -> tuple[ServedModel, int]:
        """The model and the tokens that a vector keeps; raises an error for a bad request."""
        self._limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(
            request.model,
            ModelKind.EMBEDDING,
            lambda d: bool(d.sparse_dimension),
            "sparse vectors",
        )
        description = model.description
        if request.max_active_dims == 0:
            raise InvalidRequest("max_active_dims", "at least 1, got 0")
        if not description.sparse_dimension:
            raise ModelWithoutHead(f"{description.key} has no sparse vectors")
        default = description.default_max_active_dims
        return model, request.max_active_dims or default or description.sparse_dimension


def _greatest(
    token_ids: NDArray[Any], weights: NDArray[np.float32], most: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The tokens with the ``most`` greatest weights; of equal ones, those with the lower ids."""
    if len(weights) <= most:
        return token_ids, weights
    kept = np.sort(np.argsort(-weights, kind="stable")[:most])
    return token_ids[kept], weights[kept]
