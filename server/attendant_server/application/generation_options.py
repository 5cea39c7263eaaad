"""The options of a continuation: checks and defaults."""

from collections.abc import Sequence
from dataclasses import dataclass

from attendant_server.application.decoding_options import DecodingOptions, decoding_search_options
from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

DEFAULT_OUTPUT_TOKENS = 256
MAX_STOP_TEXTS, MAX_STOP_CHARACTERS = 16, 256


@dataclass(frozen=True, slots=True)
class GenerationOptions(DecodingOptions):
    """The options of one call; None means the default."""

    stop_texts: Sequence[str] = ()
    """Texts before which continuations end."""


DEFAULT_OPTIONS = GenerationOptions()


def generation_search_options(
    options: GenerationOptions,
    limits: RequestLimits,
    model: ModelDescription,
    suppressed_token_ids: tuple[int, ...],
) -> SearchOptions:
    """The search options with all defaults filled in; raises InvalidRequest.

    Without ``max_output_tokens``, a continuation has at most `DEFAULT_OUTPUT_TOKENS`, or the least
    that is asked for, and at most what its prompt leaves of the model's limit.
    """
    search = decoding_search_options(options, limits, model, suppressed_token_ids)
    if options.max_output_tokens is not None:
        return search
    default = max(DEFAULT_OUTPUT_TOKENS, search.min_output_tokens)
    return search._replace(
        max_output_tokens=min(default, search.max_output_tokens),
        max_output_ratio=-1,
        extra_output_tokens=model.max_tokens,
    )


def max_prompt_tokens(
    options: GenerationOptions, search: SearchOptions, model: ModelDescription
) -> int:
    """The most tokens of a prompt that leave room for the tokens that are asked for."""
    if options.max_output_tokens is not None:
        return model.max_tokens - options.max_output_tokens
    return model.max_tokens - max(1, search.min_output_tokens)


def check_stop_texts(texts: Sequence[str]) -> None:
    """Raise InvalidRequest for too many stop texts, and for empty and long ones."""
    field = "options.stop_texts"
    if len(texts) > MAX_STOP_TEXTS:
        raise InvalidRequest(field, f"at most {MAX_STOP_TEXTS}, got {len(texts)}")
    for number, text in enumerate(texts):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            problem = f"must have between 1 and {MAX_STOP_CHARACTERS} characters, got {len(text)}"
            raise InvalidRequest(f"{field}[{number}]", problem)
