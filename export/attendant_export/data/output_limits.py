"""The limit of the output tokens of a translation, as the server sets it by default."""

MAX_OUTPUT_RATIO, EXTRA_OUTPUT_TOKENS = 3, 16
"""At most 3 tokens for each source token, plus 16. Quality is measured with the limit with which
users get their translations, which cuts those that repeat themselves."""


def max_output_tokens(num_source_tokens: int) -> int:
    """Limit of output tokens for a source; the model may have a lower one."""
    return MAX_OUTPUT_RATIO * num_source_tokens + EXTRA_OUTPUT_TOKENS
