"""JSON Web Tokens of an identity provider: who sends one, and what it may use."""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from attendant_server.callers import Identity
from attendant_server.errors import Unauthenticated, Unavailable
from attendant_server.security.caller_options import FIELDS, caller_options
from attendant_server.security.token_keys import TokenKey, TokenKeys
from attendant_server.security.watching import WatchedFiles

CLAIMS = ("exp", "iss", "aud", "sub")
"""Claims that every token must have."""
PERMISSIONS = {"methods", "models"}
"""Fields of the permissions claim; an absent one limits nothing."""
OPTIONS: Any = {
    "require": list(CLAIMS),
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}
"""What the library checks. It knows one clock only, so the verifier checks times."""
MAX_CACHED_TOKENS = 1024
_FIT_SUBJECT = re.compile(r"(?!sha256-)[\w.:@|/+=-]{1,128}", re.ASCII)
"""Subjects that are logged as they are. None looks like the hash of another."""
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.InvalidSignatureError, "bad_signature"),
    (jwt.InvalidIssuerError, "wrong_issuer"),
    (jwt.InvalidAudienceError, "wrong_audience"),
    (jwt.MissingRequiredClaimError, "missing_claim"),
)


class KeySource(Protocol):
    """Where keys come from."""

    @property
    def value(self) -> TokenKeys:
        """The current keys; another object after every change."""

    async def refresh_keys(self) -> None:
        """Look for newer keys, if that was not done a short time ago."""


class KeyFiles:
    """Keys in files, which are watched anyway."""

    def __init__(self, files: WatchedFiles[TokenKeys]) -> None:
        self._files = files

    @property
    def value(self) -> TokenKeys:
        """The current keys."""
        return self._files.value

    async def refresh_keys(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """The demands on a token."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    clock_skew_seconds: float
    permissions_claim: str
    """The claim with the permissions and limits of the caller; without it, it may use all."""


class TokenVerifier:
    """Verifies tokens, and remembers those that it has verified while they are valid."""

    def __init__(
        self, keys: KeySource, rules: TokenRules, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` tells the time in Unix seconds. It may jump in both directions."""
        self._keys, self._rules, self._clock = keys, rules, clock
        self._verified: OrderedDict[bytes, tuple[Identity, _Validity]] = OrderedDict()
        self._verified_with = keys.value

    async def caller(self, token: str) -> Identity:
        """The caller with this token; raises Unauthenticated, or Unavailable without any keys."""
        digest = hashlib.sha256(token.encode()).digest()
        keys = self._keys.value
        if keys is not self._verified_with:  # a withdrawn key must not live on
            self._verified.clear()
            self._verified_with = keys
        if digest in self._verified:
            caller, validity = self._verified[digest]
            if not validity.fault(self._clock(), self._rules.clock_skew_seconds):
                return caller
            del self._verified[digest]
        claims = _verified_claims(token, await self._candidates(token), self._rules)
        validity = _Validity.of(claims)
        if fault := validity.fault(self._clock(), self._rules.clock_skew_seconds):
            raise Unauthenticated(fault)
        caller = self._caller_of(claims)
        if self._keys.value is self._verified_with:
            self._remember(digest, caller, validity)
        return caller

    def _remember(self, digest: bytes, caller: Identity, validity: "_Validity") -> None:
        self._verified[digest] = (caller, validity)
        if len(self._verified) > MAX_CACHED_TOKENS:
            self._verified.popitem(last=False)

    async def _candidates(self, token: str) -> list[tuple[TokenKey, str]]:
        """The keys that may have signed a token, each with the algorithm."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key_id = header.get("alg"), header.get("kid")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("malformed") from None
        if algorithm not in self._rules.algorithms or "crit" in header:
            raise Unauthenticated("wrong_algorithm")
        found = self._keys.value.candidates(key_id, algorithm)
        if not found:
            await self._keys.refresh_keys()
            found = self._keys.value.candidates(key_id, algorithm)
        if not self._keys.value:
            raise Unavailable("the keys of tokens are not loaded")
        if not found:
            raise Unauthenticated("unknown_key_id")
        return [(key, algorithm) for key in found]

    def _caller_of(self, claims: Mapping[str, Any]) -> Identity:
        allowed = claims.get(self._rules.permissions_claim, {})
        # A misspelled field must not count as an absent one, which permits everything.
        if not isinstance(allowed, dict) or allowed.keys() - PERMISSIONS - FIELDS:
            raise Unauthenticated("bad_permissions")
        permitted: dict[str, Any] = {
            name: _names(allowed[name]) for name in PERMISSIONS & allowed.keys()
        }
        try:
            options = caller_options(allowed)
        except ValueError:
            raise Unauthenticated("bad_permissions") from None
        return Identity(_name(claims["sub"]), **permitted, **options)


@dataclass(frozen=True, slots=True)
class _Validity:
    """The time in which a token is valid, in Unix seconds."""

    begins: int
    ends: int

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> "_Validity":
        """From the claims of a token; raises Unauthenticated."""
        try:
            begins = max(int(claims.get(name, 0)) for name in ("nbf", "iat"))
            return cls(begins, int(claims["exp"]))
        except (ValueError, TypeError, OverflowError):
            raise Unauthenticated("malformed") from None

    def fault(self, now: float, skew_seconds: float) -> str:
        """Why the token is not valid now; empty if it is."""
        if self.ends <= now - skew_seconds:
            return "expired"
        return "not_yet_valid" if self.begins > now + skew_seconds else ""


def _verified_claims(
    token: str, candidates: list[tuple[TokenKey, str]], rules: TokenRules
) -> dict[str, Any]:
    failure = Unauthenticated("bad_signature")
    for key, algorithm in candidates:
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=rules.issuer,
                audience=rules.audience,
                options=OPTIONS,
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            reasons = (reason for kind, reason in _REASONS if isinstance(error, kind))
            failure = Unauthenticated(next(reasons, "malformed"))
            if not isinstance(error, jwt.InvalidSignatureError):
                break  # signed by this key, or by none
    raise failure from None


def _name(subject: str) -> str:
    if _FIT_SUBJECT.fullmatch(subject):
        return f"jwt:{subject}"
    return f"jwt:sha256-{hashlib.sha256(subject.encode(errors='replace')).hexdigest()[:16]}"


def _names(values: Any) -> frozenset[str]:
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise Unauthenticated("bad_permissions")
    return frozenset(values)
