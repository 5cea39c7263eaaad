"""Scoring of texts by causal language models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.prompt_tokens import prompt_tokenization
from attendant_server.application.tokenization import good, merged, num_tokens, tokenize
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText

TEXT_SIZE = 5
"""The work of scoring a text and writing its score, as a number of tokens in an answer."""


@dataclass(frozen=True, slots=True)
class TextScoringRequest:
    """Texts to score."""

    texts: Sequence[str]
    model: str = ""
    return_tokens: bool = False
    """Whether scores have the tokens of their texts."""
    scores_end: bool = False
    """Whether the end token counts as the last token of each text."""
    reads_special_tokens: bool = False
    """Whether the texts of special tokens stand for these tokens."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """The score of one text."""

    log_probability: float
    num_scored_tokens: int
    log_probabilities: Sequence[float]
    """One for each token, 0 for a first token that nothing comes before. Empty unless the request
    wants tokens."""
    tokens: TokenizedText | None
    """None unless the request wants tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScoringAnswer(Answer):
    """A score, or a fault, for each text, in the order of the request."""

    scores: Sequence[TextScore | InvalidRequest]


class TextScorer:
    """Scores texts with all language models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def score(
        self, request: TextScoringRequest, seconds_left: float | None
    ) -> TextScoringAnswer:
        """Score all texts; returns when all are done.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(request.model, ModelKind.LANGUAGE_MODEL)
        max_tokens = model.description.max_tokens
        options = prompt_tokenization(model, self._limits, max_tokens, request.reads_special_tokens)
        end = [model.description.eos_id] if request.scores_end else []
        options = replace(options, after=options.tokenizer.special_tokens(end), allows_empty=False)
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        texts = await tokenize(self._jobs, options, TEXTS, request.texts)
        size = TEXT_SIZE * len(texts)
        if request.return_tokens:
            size = num_tokens(texts)
            self._limits.check_response("texts", size * TOKEN_BYTES)
        scored = [text.token_ids for text in good(texts)]
        results = iter(await model.answer(ScoreCall(_pairs(scored), deadline)))
        values = [
            next(results).log_probabilities if len(token_ids) > 1 else np.zeros(0, np.float32)
            for token_ids in scored
        ]
        return TextScoringAnswer(
            model=model.description.key,
            scores=await self._jobs.run_for(
                size,
                lambda: merged(
                    texts, values, lambda text, own: _score(text, own, request.return_tokens)
                ),
            ),
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=size,
        )


def _pairs(texts: Sequence[TokenIds]) -> list[tuple[TokenIds, TokenIds]]:
    """The first token of each text, and the tokens after it, which are scored, if there are any."""
    return [(token_ids[:1], token_ids[1:]) for token_ids in texts if len(token_ids) > 1]


def _score(text: TokenizedText, values: np.ndarray, return_tokens: bool) -> TextScore:
    """The score of a text whose tokens but the first have the log-probabilities ``values``."""
    listed: list[float] = []
    if return_tokens:
        listed = values.tolist() if text.before else [0.0, *values.tolist()]
    return TextScore(
        log_probability=float(np.sum(values, dtype=np.float64)),
        num_scored_tokens=len(values),
        log_probabilities=listed,
        tokens=text.between((), text.after) if return_tokens else None,
    )
