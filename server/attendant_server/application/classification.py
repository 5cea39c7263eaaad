"""Classification of texts and of pairs of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind, ScoreFunction
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import (
    good,
    merged,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TextPair,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, RequestLimits, check_range
from attendant_server.engine.encoder_calls import LABEL_SCORES, EmbedCall
from attendant_server.errors import InvalidRequest, ModelWithoutHead

SCORE_BYTES = 16
"""Size of one label in an answer without its name, at most."""


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """Texts to classify.

    ``text_pairs`` are the second texts of pairs, if there are any. ``truncation`` is a number of
    `Truncation`, 0 for the default.
    """

    texts: Sequence[str]
    text_pairs: Sequence[str] = ()
    model: str = ""
    top_k: int | None = None
    """Labels of each text. None for all."""
    raw_scores: bool = False
    """Whether scores are those before the score function."""
    truncation: int = 0
    text_normalization: int = 0


@dataclass(frozen=True, slots=True)
class ClassifiedText:
    """The labels of one text with their scores, highest first."""

    labels: Sequence[str]
    scores: Sequence[float]
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationAnswer(Answer):
    """Labels, or a fault, for each text or pair, in the order of the request."""

    texts: Sequence[ClassifiedText | InvalidRequest]
    score_function: ScoreFunction
    """The function that was applied."""


class Classifier:
    """Classifies texts with all embedding models that have a classification head."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def classify(
        self, request: ClassificationRequest, seconds_left: float | None
    ) -> ClassificationAnswer:
        """Scores of the labels for each text or pair.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        model, top_k = self._prepare(request)
        description = model.description
        function = ScoreFunction.IDENTITY if request.raw_scores else description.score_function
        size = len(request.texts) * top_k
        label_bytes = SCORE_BYTES * top_k + sum(description.label_bytes[:top_k])
        self._limits.check_response("texts", len(request.texts) * label_bytes)
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
        )
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        texts = await tokenize(self._jobs, tokenization, TEXTS, _texts_to_read(request))
        readable = list(good(texts))
        first_lengths = [text.first_length for text in readable] if request.text_pairs else ()
        token_ids = [text.token_ids for text in readable]
        results = await model.answer(EmbedCall(token_ids, (LABEL_SCORES,), deadline, first_lengths))

        def build() -> list[ClassifiedText | InvalidRequest]:
            rows = [result[LABEL_SCORES] for result in results]
            return merged(
                texts,
                _ranked(rows, function, top_k),
                lambda text, ranked: ClassifiedText(
                    [description.labels[i] for i in ranked[0]], ranked[1], tokenization.report(text)
                ),
            )

        return ClassificationAnswer(
            model=description.key,
            texts=await self._jobs.run_for(size, build),
            score_function=function,
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=size,
        )

    def _prepare(self, request: ClassificationRequest) -> tuple[ServedModel, int]:
        """The model and the number of labels to return; raises an error for a bad request."""
        limits = self._limits
        limits.check_count("texts", len(request.texts))
        if request.text_pairs and len(request.text_pairs) != len(request.texts):
            problem = f"none or one for each of {len(request.texts)} texts"
            raise InvalidRequest("text_pairs", f"{problem}, got {len(request.text_pairs)}")
        model = self._catalog.serving(
            request.model, ModelKind.EMBEDDING, lambda d: bool(d.labels), "classification"
        )
        description = model.description
        if request.top_k is not None:
            check_range("top_k", request.top_k, 1, limits.max_top_k)
        if not description.labels:
            raise ModelWithoutHead(f"{description.key} has no classification head")
        num_labels = len(description.labels)
        return model, num_labels if request.top_k is None else min(request.top_k, num_labels)


def _texts_to_read(request: ClassificationRequest) -> Sequence[str | TextPair]:
    if not request.text_pairs:
        return request.texts
    return list(map(TextPair, request.texts, request.text_pairs))


def _ranked(
    rows: Sequence[NDArray[np.float32]], function: ScoreFunction, top_k: int
) -> list[tuple[list[int], list[float]]]:
    """The best labels of each row with their scores, highest first; equal scores in order."""
    if not rows:
        return []
    scores = apply_score_function(function, np.stack(rows).astype(np.float64))  # (texts, labels)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(scores, best, axis=1)
    return list(zip(best.tolist(), chosen.tolist(), strict=True))


def apply_score_function(
    function: ScoreFunction, scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The scores (texts, labels) after the score function."""
    if function is ScoreFunction.SIGMOID:
        return np.asarray(0.5 * (1 + np.tanh(scores / 2)))  # exp could overflow
    if function is ScoreFunction.SOFTMAX:
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return scores
