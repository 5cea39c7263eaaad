"""Random and mutated keys and tokens are read, or refused with errors of our own."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from attendant_server.callers import Identity
from attendant_server.errors import Unauthenticated
from attendant_server.security.api_keys import new_api_key, watched_api_keys
from attendant_server.security.bundle_keys import BundleKeys
from attendant_server.security.token_keys import (
    TokenKey,
    TokenKeys,
    parse_key_set,
    read_public_keys,
    read_secret,
)
from attendant_server.security.tokens import TokenRules, TokenVerifier
from attendant_server.security.watching import FileFault
from hypothesis import example, given
from hypothesis import strategies as st

from tests.server.test_fuzzing import changed, fuzz, json_values, mutated, paths_in
from tests.support.credentials import AUDIENCE, ISSUER, Signer, key_set

SECRET = b"x" * 64
METHODS = ["Translate", "Embed"]
KEY, ENTRY = new_api_key("search")
OPTIONS = {
    "name": "search",
    "sha256": "a" * 64,
    "methods": METHODS,
    "models": ["en-de", "en-de/1"],
    "max_concurrent_calls": 3,
    "max_texts_per_minute": 100,
    "max_tokens_per_minute": 1000,
    "weight": 2.0,
    "class": "bulk",
}
RSA, ELLIPTIC = Signer("rsa"), Signer("curve", "EC")
KEY_SET = json.loads(key_set(RSA, ELLIPTIC))
CLAIMS = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "alice",
    "exp": time.time() + 6000,
    "nbf": time.time() - 6000,
    "iat": time.time() - 6000,
    "attendant": {key: value for key, value in OPTIONS.items() if key not in ("name", "sha256")},
}
RULES = TokenRules(
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=("HS256",),
    clock_skew_seconds=60.0,
    permissions_claim="attendant",
)
HEADER = {"kid": "secret", "alg": "HS256", "typ": "JWT"}
numbers = st.sampled_from([float("inf"), float("nan"), 1e308, 2**63, 10**400, -(10**400)])
values = json_values | numbers


def token_of(claims: Any = CLAIMS, header: Any = HEADER) -> str:
    """A token with any JSON as its claims and header, and a good signature."""
    algorithm = jwt.get_algorithm_by_name("HS256")
    parts = [jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (header, claims)]
    signature = algorithm.sign(b".".join(parts), SECRET)
    return b".".join([*parts, jwt.utils.base64url_encode(signature)]).decode()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.touch(0o600)
    return path


class Fixed:
    """A source whose keys never change."""

    value = TokenKeys([TokenKey(SECRET)])

    async def refresh_keys(self) -> None:
        """Do nothing."""


def verify(runner: asyncio.Runner, token: str) -> None:
    verifier = TokenVerifier(Fixed(), RULES)
    for _ in range(2):  # the second time, it may be remembered
        with suppress(Unauthenticated):
            assert isinstance(runner.run(verifier.caller(token)), Identity)


def read_or_refuse(read: Callable[[], object], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    message = f"{path}: "
    try:
        read()
    except FileFault as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message) < 500


def test_the_unchanged_examples_are_good(loop: asyncio.Runner, path: Path):
    path.write_bytes(SECRET)
    assert read_secret(path, ["HS256"])
    verifier = TokenVerifier(Fixed(), RULES)
    assert loop.run(verifier.caller(token_of())).name == "jwt:alice"
    path.write_text(toml_of(OPTIONS))
    watched_api_keys(path, METHODS)


def toml_of(entry: Any) -> str:
    """A file of API keys with one entry; JSON is nearly the syntax of values."""
    fields = entry.items() if isinstance(entry, dict) else [("keys", entry)]
    lines = [f"{json.dumps(str(name))} = {json.dumps(value)}" for name, value in fields]
    return "\n".join(["[[keys]]", *lines])


@fuzz
@given(content=mutated(ENTRY.encode() + toml_of(OPTIONS | {"name": "b"}).encode()))
@example(content=b"a = " + b"[" * 100_000)
@example(content=b"a." * 10_000 + b"b = 1")
@example(content=b"\xff")
def test_mutated_bytes_of_api_keys_are_read_or_refused(path: Path, content: bytes):
    read_or_refuse(partial(watched_api_keys, path, METHODS), path, content)


@fuzz
@given(place=st.sampled_from(list(paths_in(OPTIONS))), value=values)
def test_mutated_entries_of_api_keys_are_read_or_refused(path: Path, place: Any, value: Any):
    content = toml_of(changed(OPTIONS, place, value)).encode()
    read_or_refuse(partial(watched_api_keys, path, METHODS), path, content)


@fuzz
@given(token=mutated(token_of().encode()) | st.binary(max_size=200))
@example(token=b"..")
@example(token=b"e30.e30.")
def test_mutated_bytes_of_tokens_are_verified_or_refused(loop: asyncio.Runner, token: bytes):
    verify(loop, token.decode("latin-1"))


@fuzz
@given(place=st.sampled_from(list(paths_in(CLAIMS))), value=values)
def test_mutated_claims_of_tokens_are_verified_or_refused(
    loop: asyncio.Runner, place: Any, value: Any
):
    verify(loop, token_of(claims=changed(CLAIMS, place, value)))


@fuzz
@given(name=st.sampled_from(["kid", "alg", "typ", "crit", "b64", "zip", "x"]), value=values)
def test_mutated_headers_of_tokens_are_verified_or_refused(
    loop: asyncio.Runner, name: str, value: Any
):
    verify(loop, token_of(header=HEADER | {name: value}))


@fuzz
@given(claims=values, header=values)
def test_any_json_as_a_token_is_verified_or_refused(loop: asyncio.Runner, claims: Any, header: Any):
    verify(loop, token_of(claims, header))
    verify(loop, token_of(claims))


@fuzz
@given(content=mutated(json.dumps(KEY_SET).encode()))
@example(content=b'{"keys":' + b"[" * 100_000)
def test_mutated_bytes_of_a_key_set_are_read_or_refused(path: Path, content: bytes):
    read_or_refuse(partial(read_public_keys, path), path, content)
    with suppress(ValueError):
        parse_key_set(content)


@fuzz
@given(place=st.sampled_from(list(paths_in(KEY_SET))), value=values)
def test_mutated_trees_of_a_key_set_are_read_or_refused(path: Path, place: Any, value: Any):
    content = json.dumps(changed(KEY_SET, place, value)).encode()
    read_or_refuse(partial(read_public_keys, path), path, content)
    with suppress(FileFault):
        keys = read_public_keys(path)
        for algorithm in ("RS256", "ES256", "EdDSA", "HS256"):
            keys.candidates("rsa", algorithm)


@fuzz
@given(content=mutated(RSA.public_pem) | mutated(RSA.public_pem + ELLIPTIC.public_pem))
@example(content=b"-----BEGIN " * 20_000)
def test_mutated_pem_keys_are_read_or_refused(path: Path, content: bytes):
    read_or_refuse(partial(read_public_keys, path), path, content)
    read_or_refuse(partial(BundleKeys, path), path, content)
    read_or_refuse(partial(read_secret, path, ["HS256"]), path, content)
