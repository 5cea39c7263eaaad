"""The metadata of gRPC calls and the headers of HTTP requests that every front door reads."""

import random
import re

from attendant_server.errors import InvalidRequest

AUTHORIZATION = "authorization"
REQUEST_ID = "x-request-id"
TRACE = ("traceparent", "tracestate")
"""W3C Trace Context."""
CALL_CLASS = "attendant-class"
"""The class of a call."""
INTERACTIVE, BULK = "interactive", "bulk"
MODEL = "attendant-model"
"""The name of the model, ``name`` or ``name/version``, for protocols whose requests name none."""
MAX_MODEL_CHARACTERS = 256
_FIT_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
"""Only characters that cannot forge a second log line or field."""
_ids = random.Random()
"""Ids need not be secret. Asking the system for random bytes releases the interpreter lock, and a
worker may then hold it for milliseconds."""


def request_id(given: str) -> str:
    """The id that a caller gave, if it is fit for the log, or a new one."""
    return given if _FIT_REQUEST_ID.fullmatch(given) else f"{_ids.getrandbits(64):016x}"


def is_bulk(given: str | bytes) -> bool:
    """Whether `CALL_CLASS` says that nobody waits for the answer; raises InvalidRequest."""
    if given not in (INTERACTIVE, BULK):
        raise InvalidRequest(CALL_CLASS, f"must be {INTERACTIVE} or {BULK}")
    return given == BULK


def model_name(given: str | bytes) -> str:
    """The value of `MODEL`; raises InvalidRequest for one that can be no name."""
    if not isinstance(given, str) or len(given) > MAX_MODEL_CHARACTERS:
        problem = f"must be a name of at most {MAX_MODEL_CHARACTERS} characters"
        raise InvalidRequest(MODEL, problem)
    return given
