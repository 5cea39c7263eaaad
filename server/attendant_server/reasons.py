"""Errors of Python and of libraries in words, for messages of our own that must never be empty."""


def reason_of(error: BaseException) -> str:
    """What an error says, after its class where the words alone say little; never empty."""
    words, kind = str(error).strip(), type(error).__name__
    if not words:
        return kind
    return f"{kind}: {words}" if isinstance(error, LookupError | AssertionError) else words
