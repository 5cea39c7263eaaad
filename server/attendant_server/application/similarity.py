"""Similarity of queries and texts: the cosines of their vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.distinct import distinct
from attendant_server.application.embedding import EmbeddedText, embedded_text
from attendant_server.application.jobs import JobRunner
from attendant_server.application.prompts import Prompt, PromptChoice, chosen_prompt
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    num_tokens,
    read_texts,
    tokenize_all,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, RequestLimits
from attendant_server.application.vectors import chosen_dimension, chosen_output
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.errors import CallTooLarge, InvalidRequest

QUERIES = "queries[{}]"
SCORE_BYTES = 9
"""Size of an index and a score in an answer, at most."""
SCORES_OF_SIZE_ONE = 100
"""Scores that take as long as one token of an answer."""


@dataclass(frozen=True, slots=True)
class SimilarityRequest:
    """Queries, and texts to compare with each.

    ``pooling``, ``truncation`` and ``text_normalization`` are numbers of their enums, 0 for the
    default.
    """

    queries: Sequence[str]
    texts: Sequence[str]
    model: str = ""
    top_k: int | None = None
    """Texts of each query. None for all."""
    pooling: int = 0
    dimensions: int | None = None
    """Number of first values of each vector to compare. None for all."""
    force_dimensions: bool = False
    """Whether the model need not be trained for that number."""
    query_prompt_name: str | None = None
    text_prompt_name: str | None = None
    truncation: int = 0
    text_normalization: int = 0


@dataclass(frozen=True, slots=True)
class SimilarTexts:
    """The texts that are most similar to one query, most similar first."""

    query: EmbeddedText
    indices: Sequence[int]
    scores: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityAnswer(Answer):
    """Similar texts, or a fault, for each query, in the order of the request."""

    queries: Sequence[SimilarTexts | InvalidRequest]
    texts: Sequence[EmbeddedText | InvalidRequest]


@dataclass(frozen=True, slots=True)
class _SideReader:
    """Reads queries, and then texts, each with the options of its side; a `Reader`."""

    num_queries: int
    query_options: TokenizationOptions
    text_options: TokenizationOptions

    def __call__(
        self,
        options: TokenizationOptions,
        field: str,
        texts: Sequence[str],
        first: int,
        one_by_one: bool,
    ) -> list[TokenizedOrError]:
        count = max(0, self.num_queries - first)
        return [
            *tokenize_all(self.query_options, QUERIES, texts[:count], first, one_by_one),
            *tokenize_all(
                self.text_options,
                TEXTS,
                texts[count:],
                max(0, first - self.num_queries),
                one_by_one,
            ),
        ]


class SimilarityScorer:
    """Compares texts with all embedding models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def compare(
        self, request: SimilarityRequest, seconds_left: float | None
    ) -> SimilarityAnswer:
        """The texts that are most similar to each query.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._check_counts(request)
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        description, num_queries = model.description, len(request.queries)
        output = chosen_output(request.pooling, description)
        dimension = chosen_dimension(request.dimensions, request.force_dimensions, description)
        query_prompt = await self._prompt("query_prompt_name", request, model)
        text_prompt = await self._prompt("text_prompt_name", request, model)
        query_options = self._tokenization(request, model, query_prompt)
        text_options = self._tokenization(request, model, text_prompt)
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        to_read = [*query_prompt.before(request.queries), *text_prompt.before(request.texts)]
        read = _SideReader(num_queries, query_options, text_options)
        texts = await read_texts(self._jobs, query_options, TEXTS, to_read, read)
        prompts = [query_prompt] * num_queries + [text_prompt] * len(request.texts)
        readable = distinct(
            (prompt.num_tokens, tuple(text.token_ids))
            for prompt, text in zip(prompts, texts, strict=True)
            if not isinstance(text, InvalidRequest)
        )
        has_numbers = any(number is not None for number, _ in readable.keys)
        call = EmbedCall(
            [token_ids for _, token_ids in readable.keys],
            (output,),
            deadline,
            num_prompt_tokens=[number for number, _ in readable.keys] if has_numbers else (),
        )
        results = await model.answer(call)

        queries = [embedded_text(query_options, text) for text in texts[:num_queries]]
        compared = [embedded_text(text_options, text) for text in texts[num_queries:]]
        size = num_queries * len(compared) // SCORES_OF_SIZE_ONE

        def build() -> list[SimilarTexts | InvalidRequest]:
            vectors = [result[output][:dimension] for result in results]
            num_good = sum(1 for _ in good(queries))
            places = readable.places[:num_good], readable.places[num_good:]
            scores = iter(cosines(vectors, *places))
            indices = [i for i, text in enumerate(compared) if isinstance(text, EmbeddedText)]
            return [
                query
                if isinstance(query, InvalidRequest)
                else _best(query, indices, next(scores), request.top_k)
                for query in queries
            ]

        return SimilarityAnswer(
            model=description.key,
            queries=await self._jobs.run_for(size, build),
            texts=compared,
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=size,
        )

    def _check_counts(self, request: SimilarityRequest) -> None:
        limits, num_queries, num_texts = self._limits, len(request.queries), len(request.texts)
        limits.check_count("queries", num_queries)
        limits.check_count("texts", num_texts)
        if num_queries + num_texts > limits.max_texts:
            problem = f"at most {limits.max_texts} together with queries"
            raise CallTooLarge("texts", f"{problem}, got {num_queries + num_texts}")
        if request.top_k == 0:
            raise InvalidRequest("top_k", "at least 1, got 0")
        num_scores = num_queries * min(num_texts, request.top_k or num_texts)
        limits.check_response("texts", num_scores * SCORE_BYTES)

    async def _prompt(self, field: str, request: SimilarityRequest, model: ServedModel) -> Prompt:
        return await chosen_prompt(
            PromptChoice(getattr(request, field), field=field),
            model,
            self._jobs,
            self._limits.max_text_characters,
            request.text_normalization,
        )

    def _tokenization(
        self, request: SimilarityRequest, model: ServedModel, prompt: Prompt
    ) -> TokenizationOptions:
        return tokenization_options(
            model.source_tokenizer,
            model.description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
            prompt_length=len(prompt.text),
        )


def cosines(
    vectors: Sequence[NDArray[np.float32]], queries: Sequence[int], texts: Sequence[int]
) -> NDArray[np.float32]:  # (queries, texts)
    """The cosines of vectors (d,), by the places of queries and of texts among them.

    They are between -1 and 1, exactly 1 for one vector and itself, and 0 for a vector of zeros.
    """
    if not queries or not texts:
        return np.zeros((len(queries), len(texts)), np.float32)
    units = np.stack(vectors).astype(np.float64)  # (vectors, d)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    units /= np.where(lengths == 0, 1, lengths)
    found = units[queries] @ units[sorted(set(texts))].T
    # Sums of products may depend on the place in a matrix: a text that comes twice has one column.
    columns = {place: column for column, place in enumerate(sorted(set(texts)))}
    scores = found[:, [columns[place] for place in texts]]
    scores[np.equal.outer(queries, texts) & (lengths[queries] > 0)] = 1.0
    return np.clip(scores, -1, 1).astype(np.float32)


def _best(
    query: EmbeddedText,
    indices: Sequence[int],
    scores: NDArray[np.float32],
    top_k: int | None,
) -> SimilarTexts:
    """The texts with the greatest scores; ``indices`` are those of the texts with a score."""
    best = np.argsort(-scores, kind="stable")[:top_k]
    return SimilarTexts(query, [indices[i] for i in best], scores[best].tolist())
