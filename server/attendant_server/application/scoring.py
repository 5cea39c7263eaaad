"""Scoring of given translations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from attendant_server import records
from attendant_server.application.alignment import WordLink, check_aligner, links
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog
from attendant_server.application.decoding_options import checked_length_penalty
from attendant_server.application.jobs import JobRunner
from attendant_server.application.languages import language_tokens, translation_model
from attendant_server.application.splitting import Span
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    merged,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TOKEN_BYTES, RequestLimits
from attendant_server.application.words import word_spans
from attendant_server.engine.pair_calls import (
    AlignCall,
    AttentionWeights,
    ScoreCall,
    TargetScore,
)
from attendant_server.engine.search import length_penalized
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import Token, TokenizedText

SOURCES, TARGETS = "pairs[{}].source", "pairs[{}].target"
"""The names of the two sides of a pair, for messages."""
PAIR_SIZE = 5
"""The work of scoring a pair and writing its score, as a number of tokens in an answer."""
TokenizedPairOrError: TypeAlias = tuple[TokenizedText, TokenizedText] | InvalidRequest


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """Sources with one translation each.

    ``truncation`` of the sources is a number of `Truncation`, 0 for the default.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    model: str = ""
    length_penalty: float | None = None
    truncation: int = 0
    source_language: str = ""
    target_language: str = ""
    text_normalization: int = 0
    return_tokens: bool = False
    """Whether scores have the tokens of their targets."""
    return_alignments: bool = False
    """Whether scores have the links between the words of their pairs."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Values of controls of the model by name."""


@dataclass(frozen=True, slots=True)
class PairScore:
    """The score of one pair."""

    score: float
    """``log_probability`` divided by the target's length to the power of the length penalty."""
    log_probability: float
    log_probabilities: Sequence[float]
    """One for each token of the target. Empty unless the request wants tokens."""
    target: TokenizedText | None
    """None unless the request wants tokens."""
    num_source_tokens: int
    truncation: TruncationReport | None
    alignments: Sequence[WordLink] = ()
    """Links between words of the pair. Empty unless the request wants them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringAnswer(Answer):
    """A score, or a fault, for each pair, in the order of the request."""

    scores: Sequence[PairScore | InvalidRequest]


class Scorer:
    """Scores translations with all translation models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def score(self, request: ScoringRequest, seconds_left: float | None) -> ScoringAnswer:
        """Score all pairs; returns when all are done.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._limits.check_count("pairs", len(request.sources))
        languages = request.source_language, request.target_language
        model = translation_model(self._catalog, request.model, *languages)
        if request.return_alignments:
            check_aligner(model.description)
        tokens = language_tokens(model, *languages, request.controls)
        penalty = checked_length_penalty(
            "length_penalty", request.length_penalty, model.description
        )
        source_options = tokenization_options(
            model.source_tokenizer,
            model.description.max_source_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
            tokens.before_source,
            tokens.after_source,
            text_codes=tokens.text_codes,
            before_text=tokens.before_text,
        )
        target_options = TokenizationOptions(  # never truncated
            model.target_tokenizer,
            model.description.max_target_tokens,
            self._limits.max_text_characters,
            before=model.target_tokenizer.special_tokens(tokens.forced_target_ids),
            normalizes=source_options.normalizes,
        )
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        sources = await tokenize(self._jobs, source_options, SOURCES, request.sources)
        targets = await tokenize(self._jobs, target_options, TARGETS, request.targets)
        pairs = [_pair(*sides) for sides in zip(sources, targets, strict=True)]
        size = PAIR_SIZE * len(pairs)
        if request.return_tokens or request.return_alignments:
            size = sum(len(target) for _, target in good(pairs))
            self._limits.check_response("pairs", size * TOKEN_BYTES)
        token_ids = [(s.token_ids, t.token_ids) for s, t in good(pairs)]
        results = await model.answer(ScoreCall(token_ids, deadline))

        build = partial(_score, penalty, source_options, request.return_tokens)
        scores = await self._jobs.run_for(size, lambda: merged(pairs, results, build))
        if request.return_alignments:
            weights = await model.answer_further(AlignCall(token_ids, deadline))
            aligned = zip(scores, request.sources, request.targets, pairs, strict=True)
            scores = await self._jobs.run_for(size, lambda: _with_links(aligned, weights))
        return ScoringAnswer(
            model=model.description.key,
            scores=scores,
            num_input_tokens=sum(len(source) + len(target) for source, target in good(pairs)),
            phases=records.current().phases(),
            size=size,
        )


def _with_links(
    scored: Iterable[tuple[PairScore | InvalidRequest, str, str, TokenizedPairOrError]],
    weights: Iterable[AttentionWeights],
) -> list[PairScore | InvalidRequest]:
    """The scores with the links between the words of their source and their target."""
    remaining, results = iter(weights), list[PairScore | InvalidRequest]()
    for score, source, target, tokens in scored:
        if not isinstance(score, InvalidRequest) and not isinstance(tokens, InvalidRequest):
            source_tokens, target_tokens = ([*map(_span, side)] for side in tokens)
            found = links(
                next(remaining),
                source_tokens,
                word_spans(source),
                target_tokens,
                word_spans(target),
            )
            score = replace(score, alignments=list(found))
        results.append(score)
    return results


def _span(token: Token) -> Span:
    return (0, 0) if token.is_special else (token.start, token.end)


def _pair(source: TokenizedOrError, target: TokenizedOrError) -> TokenizedPairOrError:
    if isinstance(source, InvalidRequest):
        return source
    if isinstance(target, InvalidRequest):
        return target
    return source, target


def _score(
    length_penalty: float,
    tokenization: TokenizationOptions,
    return_tokens: bool,
    pair: tuple[TokenizedText, TokenizedText],
    result: TargetScore,
) -> PairScore:
    source, target = pair
    log_probabilities = result.log_probabilities  # (target)
    log_probabilities[: len(target.before)] = 0  # nothing else may be there
    total = float(np.sum(log_probabilities, dtype=np.float64))
    return PairScore(
        score=length_penalized(total, len(target), length_penalty),
        log_probability=total,
        log_probabilities=log_probabilities.tolist() if return_tokens else (),
        target=target if return_tokens else None,
        num_source_tokens=len(source),
        truncation=tokenization.report(source),
    )
