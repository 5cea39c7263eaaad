"""The options of a translation: checks and defaults."""

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

ALLOW_UNKNOWN, REPLACE_UNKNOWN = "options.allow_unknown", "options.replace_unknown"
MAX_LENGTH_PENALTY = 10.0
MAX_PATIENCE = 10.0
MAX_COVERAGE_PENALTY = 10.0
MAX_PREFIX_BIAS = 100.0
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 100.0
MAX_OUTPUT_RATIO, EXTRA_OUTPUT_TOKENS = 3, 16
"""By default, a translation has at most 3 tokens for each source token, plus 16. A longer one most
likely repeats itself: none of 164,110 English-German pairs has more than 1.5 times the source
tokens + 16, in either direction."""


@dataclass(frozen=True, slots=True)
class TranslationOptions:
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
    allow_unknown: bool | None = None
    """Whether hypotheses may contain the unknown token."""
    replace_unknown: bool = False
    """Whether source text replaces the unknown tokens of hypotheses."""
    repetition_penalty: float | None = None
    patience: float | None = None
    coverage_penalty: float | None = None
    target_prefix_bias: float | None = None
    """What makes the tokens of target prefixes likelier; None if translations begin with them."""
    num_beam_groups: int | None = None
    diversity_penalty: float | None = None
    return_alternatives: bool = False
    """Whether hypotheses begin with different tokens after the prefix."""
    sampling: SamplingOptions | None = None
    """How tokens are drawn at random; None for a search."""

    @property
    def are_usual(self) -> bool:
        """Whether many calls may have the same options."""
        return self.sampling is None and not (self.suppressed_token_ids or self.suppressed_texts)


DEFAULT_OPTIONS = TranslationOptions()


def search_options(
    options: TranslationOptions,
    limits: RequestLimits,
    model: ModelDescription,
    forced_token_ids: tuple[int, ...] = (),
    suppressed_token_ids: tuple[int, ...] | None = None,
) -> SearchOptions:
    """The search options with all defaults filled in; raises InvalidRequest.

    ``suppressed_token_ids`` are by default those of the model. Without ``max_output_tokens``, the
    limit of each text depends on its source tokens (`MAX_OUTPUT_RATIO`).
    """
    max_target_tokens = model.max_target_tokens
    beam_size, num_hypotheses = _widths(options, limits, model)
    max_output_tokens = _or_default(options.max_output_tokens, max_target_tokens)
    check_range("options.max_output_tokens", max_output_tokens, 1, max_target_tokens)
    default_min_output_tokens = min(model.default_min_output_tokens, max_output_tokens)
    min_output_tokens = _or_default(options.min_output_tokens, default_min_output_tokens)
    check_range("options.min_output_tokens", min_output_tokens, 0, max_output_tokens)
    no_repeat_ngram_size = _or_default(options.no_repeat_ngram_size, model.no_repeat_ngram_size)
    check_range("options.no_repeat_ngram_size", no_repeat_ngram_size, 0, max_target_tokens)
    return SearchOptions(
        max_output_tokens=max_output_tokens,
        beam_size=beam_size,
        num_hypotheses=num_hypotheses,
        length_penalty=checked_length_penalty(
            "options.length_penalty", options.length_penalty, model
        ),
        min_output_tokens=min_output_tokens,
        max_output_ratio=MAX_OUTPUT_RATIO if options.max_output_tokens is None else None,
        extra_output_tokens=EXTRA_OUTPUT_TOKENS,
        suppressed_token_ids=(
            tuple(model.suppressed_token_ids)
            if suppressed_token_ids is None
            else suppressed_token_ids
        ),
        forced_token_ids=forced_token_ids,
        prefix_bias=_prefix_bias(options),
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
    options: TranslationOptions, limits: RequestLimits, model: ModelDescription
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


def checked_coverage_penalty(options: TranslationOptions, search: SearchOptions) -> float:
    """The coverage penalty, by default 0; raises InvalidRequest."""
    penalty, field = options.coverage_penalty, "options.coverage_penalty"
    if penalty is None:
        return 0.0
    if not 0 <= penalty <= MAX_COVERAGE_PENALTY:
        raise InvalidRequest(field, f"must be between 0 and {MAX_COVERAGE_PENALTY:g}")
    if search.beam_size == 1 or options.return_alternatives:
        raise InvalidRequest(field, "is for beam searches without alternatives only")
    return penalty


def _prefix_bias(options: TranslationOptions) -> float | None:
    bias, field = options.target_prefix_bias, "options.target_prefix_bias"
    if bias is None:
        return None
    if not 0 < bias <= MAX_PREFIX_BIAS:
        raise InvalidRequest(field, f"must be more than 0 and at most {MAX_PREFIX_BIAS:g}")
    if options.return_alternatives:
        raise InvalidRequest(field, "is for calls without alternatives only")
    return bias


def _patience(patience: float | None, beam_size: int) -> float:
    if patience is None:
        return 1.0
    if not 1 <= patience <= MAX_PATIENCE:
        raise InvalidRequest("options.patience", f"must be between 1 and {MAX_PATIENCE:g}")
    if beam_size == 1:
        raise InvalidRequest("options.patience", "is for beam searches only")
    return patience


def _repetition_penalty(options: TranslationOptions, model: ModelDescription) -> float:
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
