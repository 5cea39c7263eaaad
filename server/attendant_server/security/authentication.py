"""Authenticates a call: by its bearer token, an API key or JSON Web Token, or its certificate."""

import re
from collections.abc import Callable, Sequence

from attendant_server.callers import Identity
from attendant_server.errors import AttendantError, Unauthenticated
from attendant_server.security.api_keys import ApiKeys
from attendant_server.security.tokens import TokenVerifier
from attendant_server.security.watching import WatchedFiles

SCHEME = "bearer "
MAX_TOKEN_CHARACTERS = 6144
"""gRPC refuses metadata above 8192 bytes with another status."""
AUTHENTICATED, KEYS_UNAVAILABLE = "authenticated", "keys_unavailable"
RESULTS = (
    AUTHENTICATED, KEYS_UNAVAILABLE, "no_token", "too_long", "unknown_key", "expired", "malformed",
    "unknown_key_id", "wrong_algorithm", "bad_signature", "wrong_issuer", "wrong_audience",
    "not_yet_valid", "missing_claim", "bad_permissions",
)  # fmt: skip
"""All results of an authentication."""
_UNFIT = re.compile(r"[^\w.:@/+=-]", re.ASCII)
_MAX_NAME_CHARACTERS = 128


def caller_of_certificate(name: str) -> Identity:
    """The caller with a certificate of this name, made fit for the log."""
    return Identity(f"cert:{_UNFIT.sub('_', name)[:_MAX_NAME_CHARACTERS]}")


class Authenticator:
    """Finds the caller of a call."""

    def __init__(
        self,
        api_keys: WatchedFiles[ApiKeys] | None,
        tokens: TokenVerifier | None,
        on_result: Callable[[str], None],
    ) -> None:
        """``on_result`` receives one of `RESULTS` for each call."""
        self._api_keys, self._tokens, self._on_result = api_keys, tokens, on_result

    async def caller(self, authorizations: Sequence[str | bytes]) -> Identity:
        """The caller with these values of ``authorization``; raises Unauthenticated."""
        try:
            caller = await self._caller(_token(authorizations))
        except Unauthenticated as error:
            self._on_result(error.reason)
            raise
        except AttendantError:
            self._on_result(KEYS_UNAVAILABLE)
            raise
        self._on_result(AUTHENTICATED)
        return caller

    async def _caller(self, token: str) -> Identity:
        # Keys that the server makes have no full stops.
        if self._tokens is not None and (self._api_keys is None or token.count(".") == 2):
            return await self._tokens.caller(token)
        assert self._api_keys is not None
        return self._api_keys.value.caller(token)


def _token(authorizations: Sequence[str | bytes]) -> str:
    if len(authorizations) != 1:  # none, or several that contradict each other
        raise Unauthenticated("no_token")
    [value] = authorizations
    if len(value) > MAX_TOKEN_CHARACTERS + len(SCHEME):
        raise Unauthenticated("too_long")
    if not isinstance(value, str) or not value.isascii():
        raise Unauthenticated("malformed")
    if value[: len(SCHEME)].lower() != SCHEME:
        raise Unauthenticated("no_token")
    return value[len(SCHEME) :].strip()
