"""BCP 47 tags of languages.

A tag that is not known stands for the longest of its prefixes that is (RFC 4647, section 3.4):
"de-AT" for "de".
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from attendant_server.errors import InvalidRequest

MAX_TAG_CHARACTERS = 100
_TAG = re.compile(r"[a-z0-9]{1,8}(?:[-_][a-z0-9]{1,8})*", re.ASCII | re.IGNORECASE)

Value = TypeVar("Value")


def check_tag(field: str, tag: str) -> None:
    """Raise InvalidRequest for what is no tag: messages and so the log may repeat tags."""
    if len(tag) > MAX_TAG_CHARACTERS:
        raise InvalidRequest(field, f"at most {MAX_TAG_CHARACTERS} characters")
    if not _TAG.fullmatch(tag):
        raise InvalidRequest(field, "must be a language tag such as de or pt-BR")


def longest_match(known: Mapping[str, Value], tag: str) -> Value | None:
    """The value of a tag or of its longest known prefix; the keys of ``known`` are lower case."""
    parts = tag.lower().split("-")
    while parts:
        if (found := known.get("-".join(parts))) is not None:
            return found
        # A singleton begins an extension and is never the end of a tag.
        parts = parts[: -2 if len(parts) > 1 and len(parts[-2]) == 1 else -1]
    return None
