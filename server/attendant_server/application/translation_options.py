"""The options of a translation: checks and defaults."""

from dataclasses import dataclass

from attendant_server.application.decoding_options import DecodingOptions, decoding_search_options
from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

ALLOW_UNKNOWN, REPLACE_UNKNOWN = "options.allow_unknown", "options.replace_unknown"
MAX_COVERAGE_PENALTY = 10.0
MAX_PREFIX_BIAS = 100.0
MAX_OUTPUT_RATIO, EXTRA_OUTPUT_TOKENS = 3, 16
"""By default, a translation has at most 3 tokens for each source token, plus 16. A longer one most
likely repeats itself: none of 164,110 English-German pairs has more than 1.5 times the source
tokens + 16, in either direction."""


@dataclass(frozen=True, slots=True)
class TranslationOptions(DecodingOptions):
    """The options of one call; None means the default."""

    allow_unknown: bool | None = None
    """Whether hypotheses may contain the unknown token."""
    replace_unknown: bool = False
    """Whether source text replaces the unknown tokens of hypotheses."""
    coverage_penalty: float | None = None
    target_prefix_bias: float | None = None
    """What makes the tokens of target prefixes likelier; None if translations begin with them."""

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
    search = decoding_search_options(options, limits, model, suppressed_token_ids)
    return search._replace(
        max_output_ratio=MAX_OUTPUT_RATIO if options.max_output_tokens is None else None,
        extra_output_tokens=EXTRA_OUTPUT_TOKENS,
        forced_token_ids=forced_token_ids,
        prefix_bias=_prefix_bias(options),
    )


def allows_unknown(options: TranslationOptions) -> bool | None:
    """Whether the unknown token may come; None for the default of the model."""
    if not options.replace_unknown:
        return options.allow_unknown
    if options.allow_unknown is False:
        problem = f"must not be false with {REPLACE_UNKNOWN}, which replaces unknown tokens"
        raise InvalidRequest(ALLOW_UNKNOWN, problem)
    return True


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
