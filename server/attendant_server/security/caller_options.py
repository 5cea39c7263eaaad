"""The limits and the class of a caller, as the key file and the claim of tokens state them."""

from collections.abc import Mapping
from typing import Any

from attendant_server.callers import Quota
from attendant_server.settings import Settings

MAX_LIMIT = 10**12
MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000
CLASSES = ("interactive", "bulk")
FIELDS = {*Quota._fields, "weight", "class"}
"""The names of all options."""


def caller_options(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Caller` for the options in an entry; raises ValueError."""
    return {
        "quota": Quota(*(_limit(field, entry) for field in Quota._fields)),
        "weight": _weight(entry.get("weight", 1)),
        "is_bulk": _class(entry.get("class", CLASSES[0])) == "bulk",
    }


def default_quota(settings: Settings) -> Quota:
    """The limits of callers without their own."""
    return Quota(
        settings.caller_max_concurrent_calls,
        settings.caller_max_texts_per_minute,
        settings.caller_max_tokens_per_minute,
    )


def _limit(field: str, entry: Mapping[str, Any]) -> int | None:
    value = entry.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LIMIT:
        raise ValueError(f"{field} must be a whole number from 0, for no limit, to {MAX_LIMIT}")
    return value


def _weight(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise ValueError(f"weight must be a number from {MIN_WEIGHT} to {MAX_WEIGHT}")
    return float(value)


def _class(value: Any) -> str:
    if value not in CLASSES:
        raise ValueError(f"class must be one of {', '.join(CLASSES)}")
    return str(value)
