"""Texts of exceptions, never empty, for log lines and error messages."""


def reason_of(error: BaseException) -> str:
    """The text of an error, after its class if the text alone is unclear; never empty."""
    words, kind = str(error).strip(), type(error).__name__
    if not words:
        return kind
    return f"{kind}: {words}" if isinstance(error, LookupError | AssertionError) else words
