"""The options of decoding that all calls share that decode: checks and defaults."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.grouped_search_options import (
    checked_beam_groups,
    checked_diversity_penalty,
    widths_of_alternatives,
)
from attendant_server.application.sampling import SamplingOptions, checked_sampling
from attendant_server.application.validation import RequestLimits, check_range
from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

MAX_LENGTH_PENALTY = 10.0
MAX_PATIENCE = 10.0
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 100.0


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """The options of one call; None means the default."""

    beam_size: int | None = None
    num_hypotheses: int | None = None
    length_penalty: float | None = None
    max_output_tokens: int | None = None
    min_output_tokens: int | None = None
    return_tokens: bool = False
    """Whether hypotheses have their tokens."""
    repetition_guard: bool | None = None
    no_repeat_ngram_size: int | None = None
    suppressed_token_ids: Sequence[int] = ()
    suppressed_texts: Sequence[str] = ()
    """Texts of tokens to suppress."""
    repetition_penalty: float | None = None
    patience: float | None = None
    num_beam_groups: int | None = None
    diversity_penalty: float | None = None
    return_alternatives: bool = False
    """Whether hypotheses begin with different tokens after the prefix; for translations only."""
    sampling: SamplingOptions | None = None
    """How tokens are drawn at random; None for a search."""


def decoding_search_options(
    options: DecodingOptions,
    limits: RequestLimits,
    model: ModelDescription,
    suppressed_token_ids: tuple[int, ...] | None = None,
) -> SearchOptions:
    """The search options with all defaults filled in; raises InvalidRequest.

    ``suppressed_token_ids`` are by default those of the model.
    """
    beam_size, num_hypotheses = _widths(options, limits, model)
    max_output_tokens = _or_default(options.max_output_tokens, model.max_output_tokens)
    check_range("options.max_output_tokens", max_output_tokens, 1, model.max_output_tokens)
    default_min_output_tokens = min(model.default_min_output_tokens, max_output_tokens)
    min_output_tokens = _or_default(options.min_output_tokens, default_min_output_tokens)
    check_range("options.min_output_tokens", min_output_tokens, 0, max_output_tokens)
    no_repeat_ngram_size = _or_default(options.no_repeat_ngram_size, model.no_repeat_ngram_size)
    check_range("options.no_repeat_ngram_size", no_repeat_ngram_size, 0, model.max_output_tokens)
    return SearchOptions(
        max_output_tokens=max_output_tokens,
        beam_size=beam_size,
        num_hypotheses=num_hypotheses,
        length_penalty=checked_length_penalty(
            "options.length_penalty", options.length_penalty, model
        ),
        min_output_tokens=min_output_tokens,
        suppressed_token_ids=(
            tuple(model.suppressed_token_ids)
            if suppressed_token_ids is None
            else suppressed_token_ids
        ),
        early_stopping=model.early_stopping,
        patience=_patience(options.patience, beam_size),
        num_beam_groups=(num_beam_groups := checked_beam_groups(options, beam_size)),
        diversity_penalty=checked_diversity_penalty(options, num_beam_groups),
        num_alternatives=num_hypotheses if options.return_alternatives else 1,
        no_repeat_ngram_size=no_repeat_ngram_size,
        repetition_penalty=_repetition_penalty(options, model),
        sampling=None if options.sampling is None else checked_sampling(options.sampling),
        repetition_guard=(
            model.repetition_guard if options.repetition_guard is None else options.repetition_guard
        ),
    )


def _widths(
    options: DecodingOptions, limits: RequestLimits, model: ModelDescription
) -> tuple[int, int]:
    """The beam size and the number of hypotheses."""
    if options.return_alternatives:
        return widths_of_alternatives(options, limits, model)
    default_beam_size = min(model.default_beam_size, limits.max_beam_size)
    if options.sampling is not None:
        default_beam_size = 1
    beam_size = _or_default(options.beam_size, default_beam_size)
    check_range("options.beam_size", beam_size, 1, limits.max_beam_size)
    if options.sampling is not None and beam_size > 1:
        raise InvalidRequest("options.beam_size", f"must be 1 with sampling, got {beam_size}")
    num_hypotheses = _or_default(options.num_hypotheses, 1)
    max_hypotheses = beam_size if options.sampling is None else limits.max_beam_size
    check_range("options.num_hypotheses", num_hypotheses, 1, max_hypotheses)
    return beam_size, num_hypotheses


def checked_length_penalty(
    field: str, length_penalty: float | None, model: ModelDescription
) -> float:
    """The checked length penalty, by default that of the model; raises InvalidRequest."""
    if length_penalty is None:
        return model.default_length_penalty
    if not (math.isfinite(length_penalty) and 0.0 <= length_penalty <= MAX_LENGTH_PENALTY):
        raise InvalidRequest(field, f"must be between 0 and {MAX_LENGTH_PENALTY:g}, and finite")
    return length_penalty


def _patience(patience: float | None, beam_size: int) -> float:
    if patience is None:
        return 1.0
    if not 1 <= patience <= MAX_PATIENCE:
        raise InvalidRequest("options.patience", f"must be between 1 and {MAX_PATIENCE:g}")
    if beam_size == 1:
        raise InvalidRequest("options.patience", "is for beam searches only")
    return patience


def _repetition_penalty(options: DecodingOptions, model: ModelDescription) -> float:
    penalty = options.repetition_penalty
    if penalty is None:
        return model.repetition_penalty
    if not MIN_REPETITION_PENALTY <= penalty <= MAX_REPETITION_PENALTY:
        raise InvalidRequest(
            "options.repetition_penalty",
            f"must be between {MIN_REPETITION_PENALTY:g} and {MAX_REPETITION_PENALTY:g}",
        )
    if penalty != 1 and not model.takes_repetition_penalties:
        raise InvalidRequest(
            "options.repetition_penalty", f"the graphs of {model.key} can apply none but 1"
        )
    return penalty


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value
