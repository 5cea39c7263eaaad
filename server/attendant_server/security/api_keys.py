"""API keys: random secrets of named callers. The server's file holds their SHA-256 only.

A key has 256 random bits, so it cannot be guessed from a fast hash; passwords would need a slow
one.
"""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attendant_server.callers import KEY, Identity, Quota
from attendant_server.errors import Unauthenticated
from attendant_server.security.caller_options import FIELDS, caller_options
from attendant_server.security.watching import (
    FileFault,
    WatchedFiles,
    read_file,
    warn_if_readable_by_others,
)

PREFIX = "attendant_"
"""Scanners for leaked secrets can find keys by it."""
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "methods", "models", "expires", *FIELDS}
_NUM_INDEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the file."""

    sha256: bytes
    caller: Identity
    expires: datetime | None
    """None for never."""


class ApiKeys:
    """The keys of one file."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        # Keys are found by the first bytes of their hash and compared in constant time.
        self._keys = {key.sha256[:_NUM_INDEX_BYTES]: key for key in keys}

    def caller(self, token: str) -> Identity:
        """The caller with this key; raises Unauthenticated."""
        digest = hashlib.sha256(token.encode()).digest()
        key = self._keys.get(digest[:_NUM_INDEX_BYTES])
        if key is None or not hmac.compare_digest(digest, key.sha256):
            raise Unauthenticated("unknown_key")
        if key.expires is not None and key.expires <= datetime.now(UTC):
            raise Unauthenticated("expired")
        return key.caller


def watched_api_keys(
    path: Path,
    methods: Collection[str],
    on_callers: Callable[[Iterable[str]], None] = lambda _: None,
) -> WatchedFiles[ApiKeys]:
    """The keys in a TOML file; raises FileFault. ``methods`` are all names of methods.

    ``on_callers`` receives the names of callers at every reading, on any thread.
    """

    def read() -> ApiKeys:
        keys = _read(path, methods)
        on_callers({key.caller.name for key in keys})
        return ApiKeys(keys)

    return WatchedFiles([path], read)


def new_api_key(name: str) -> tuple[str, str]:
    """A new key, and its entry for the file; raises ValueError for a bad name."""
    if not _NAME.fullmatch(name):
        raise ValueError("the name of a key has 1 to 64 letters, digits or _.-")
    key = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    return key, f'[[keys]]\nname = "{name}"\nsha256 = "{digest}"\n'


def _read(path: Path, methods: Collection[str]) -> list[ApiKey]:
    content = read_file(path)
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise FileFault(f"{path}: is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:  # names line and column, and no content
        raise FileFault(f"{path}: is not TOML: {error}") from None
    warn_if_readable_by_others(path)
    entries = document.get("keys", [])
    if document.keys() - {"keys"} or not isinstance(entries, list):
        raise FileFault(f"{path}: must have tables [[keys]] only")
    keys: dict[bytes, ApiKey] = {}
    callers: dict[str, Identity] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}: [[keys]] number {number}"
        key = _entry(where, entry, methods)
        if keys.setdefault(key.sha256, key) is not key:
            raise FileFault(f"{where}: sha256 is in the file twice")
        if _options(callers.setdefault(key.caller.name, key.caller)) != _options(key.caller):
            options = ", ".join(sorted(FIELDS))
            raise FileFault(f"{where}: {options} must be those of the other key of this name")
    return list(keys.values())


def _options(caller: Identity) -> tuple[Quota, float, bool]:
    return caller.quota, caller.weight, caller.is_bulk


def _entry(where: str, entry: Any, methods: Collection[str]) -> ApiKey:
    if not isinstance(entry, dict) or entry.keys() - _FIELDS:
        raise FileFault(f"{where}: the fields are {', '.join(sorted(_FIELDS))}")
    if not _matches(_NAME, entry.get("name")):
        raise FileFault(f"{where}: name must have 1 to 64 letters, digits or _.-")
    if not _matches(_SHA256, entry.get("sha256")):
        raise FileFault(f"{where}: sha256 must have 64 digits 0-9a-f")
    permitted, models = (_list(where, field, entry) for field in ("methods", "models"))
    if not (permitted or frozenset()) <= set(methods):
        raise FileFault(f"{where}: methods must be among {', '.join(sorted(methods))}")
    expires = entry.get("expires")
    if expires is not None and not (isinstance(expires, datetime) and expires.tzinfo):
        raise FileFault(f"{where}: expires must be a time with a zone, as 2027-01-31T00:00:00Z")
    try:
        caller = Identity(f"{KEY}{entry['name']}", permitted, models, **caller_options(entry))
    except ValueError as error:
        raise FileFault(f"{where}: {error}") from None
    return ApiKey(bytes.fromhex(entry["sha256"]), caller, expires)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


def _list(where: str, field: str, entry: Mapping[str, Any]) -> frozenset[str] | None:
    values = entry.get(field)
    if values is None:
        return None
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise FileFault(f"{where}: {field} must be a list of names")
    return frozenset(values)
