"""JSON Web Tokens of real calls, with keys from files and from a URL."""

import asyncio
import base64
import copy
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from attendant_client import PermissionDeniedError, UnauthenticatedError
from attendant_server.app import StartError
from attendant_server.errors import Unauthenticated
from attendant_server.security.token_keys import (
    TokenKey,
    TokenKeys,
    parse_key_set,
    read_secret,
)
from attendant_server.security.tokens import MAX_CACHED_TOKENS, TokenRules, TokenVerifier
from attendant_server.setting_rules import ASYMMETRIC_ALGORITHMS
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.support.credentials import AUDIENCE, ISSUER, Signer, is_known, jwt_settings, key_set
from tests.support.serving import metrics_page, running_server, sum_of_metric, wait_until

SIGNER, OTHER = Signer("first"), Signer("second")
ELLIPTIC = Signer("curve", "EC")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A file with the key set of SIGNER and ELLIPTIC."""
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(SIGNER, ELLIPTIC))
    return path


@pytest.fixture(scope="module")
def shared_server(loop, settings, tmp_path_factory) -> Iterator[Any]:
    """A server for the tokens of SIGNER and ELLIPTIC."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_bytes(key_set(SIGNER, ELLIPTIC))
    with running_server(loop, settings(**jwt_settings(jwt_keys=str(path)))) as running:
        yield running.server


@pytest.fixture
def refused(shared_server, client_of, caplog) -> Callable[[str, str], None]:
    """Checks that a server refuses a token, and why."""
    caplog.set_level("INFO")

    def num_refused(reason: str) -> float:
        page = metrics_page(shared_server)
        return sum_of_metric(page, "attendant_authentication_total", result=reason)

    def refused(token: str, reason: str) -> None:
        before = num_refused(reason)
        with pytest.raises(UnauthenticatedError, match="send valid credentials"):
            client_of(shared_server, token=token).models()
        assert num_refused(reason) == before + 1
        wait_until(lambda: f"reason={reason}" in caplog.text)
        assert token not in caplog.text

    return refused


@pytest.mark.parametrize("signer", [SIGNER, ELLIPTIC])
def test_a_valid_token_is_served_and_its_subject_logged(start, client_of, keys, caplog, signer):
    caplog.set_level("INFO")
    server = start(**jwt_settings(jwt_keys=str(keys)))
    assert is_known(client_of(server, token=signer.token(sub="alice@example.org")))
    wait_until(lambda: "caller=jwt:alice@example.org" in caplog.text)


def test_a_subject_that_is_unfit_for_the_log_is_logged_as_its_hash(start, client_of, keys, caplog):
    caplog.set_level("INFO")
    server = start(**jwt_settings(jwt_keys=str(keys)))
    assert is_known(client_of(server, token=SIGNER.token(sub="a\nevent=forged")))
    wait_until(lambda: "caller=jwt:sha256-" in caplog.text)
    assert "forged" not in caplog.text


def test_a_subject_cannot_take_the_logged_name_of_another():
    verifier = verifier_of(parse_key_set(key_set(ELLIPTIC)), "ES256")
    hashed = asyncio.run(verifier.caller(ELLIPTIC.token(sub="a b"))).name
    copied = ELLIPTIC.token(sub=hashed.removeprefix("jwt:"))
    assert asyncio.run(verifier.caller(copied)).name != hashed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1_000_000}, "expired"),
        ({"exp": time.time() - 60}, "expired"),
        ({"iss": "https://other.example"}, "wrong_issuer"),
        ({"aud": "another"}, "wrong_audience"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"without": ["exp"]}, "missing_claim"),
        ({"without": ["iss"]}, "missing_claim"),
        ({"without": ["aud"]}, "missing_claim"),
        ({"without": ["sub"]}, "missing_claim"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"sub": 5}, "malformed"),
        ({"attendant": "all"}, "bad_permissions"),
        ({"attendant": {"models": "tiny-bert"}}, "bad_permissions"),
        ({"attendant": {"methods": [1]}}, "bad_permissions"),
        ({"attendant": None}, "bad_permissions"),
        ({"attendant": {"models": None}}, "bad_permissions"),
        ({"attendant": {"model": ["tiny-bert"]}}, "bad_permissions"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(refused, changes, reason):
    refused(SIGNER.token(**changes), reason)


def test_a_token_may_expire_later_than_a_float_can_say(shared_server, client_of):
    client = client_of(shared_server, token=SIGNER.token(exp=10**400))
    assert is_known(client)
    assert is_known(client)  # remembered


def test_clocks_may_differ_by_the_skew(start, client_of, keys):
    server = start(**jwt_settings(jwt_keys=str(keys), jwt_clock_skew_seconds=60))
    late_or_early: list[Any] = [{"exp": time.time() - 20}, {"nbf": time.time() + 20}]
    for times in late_or_early:
        assert is_known(client_of(server, token=SIGNER.token(**times)))


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def with_header(**fields: Any) -> str:
    """A valid token but for its header."""
    return ".".join([encoded(json.dumps(fields).encode()), *SIGNER.token().split(".")[1:]])


def signed_with_public_key() -> str:
    """A token whose HS256 signature was made with the public key as a shared secret."""
    header = encoded(json.dumps({"alg": "HS256", "kid": "first"}).encode())
    signed = f"{header}.{SIGNER.token().split('.')[1]}"
    mac = hmac.new(SIGNER.public_pem, signed.encode(), hashlib.sha256)
    return f"{signed}.{encoded(mac.digest())}"


def signed_by(signer: Signer, key_id: str) -> str:
    changed = copy.copy(signer)
    changed.key_id = key_id
    return changed.token()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: with_header(alg="none", kid="first"), "wrong_algorithm"),
        (lambda: with_header(alg="none").rpartition(".")[0] + ".", "wrong_algorithm"),
        (signed_with_public_key, "wrong_algorithm"),
        (lambda: with_header(alg="RS512", kid="first"), "wrong_algorithm"),
        (lambda: with_header(alg=["RS256"], kid="first"), "wrong_algorithm"),
        (lambda: with_header(alg="RS256", crit=["b64"], b64=True), "wrong_algorithm"),
        (lambda: with_header(alg="RS256", crit=["other"], other=1), "malformed"),
        (lambda: with_header(alg="ES256", kid="first"), "unknown_key_id"),
        (lambda: with_header(alg="RS256", kid=1), "malformed"),
        (lambda: with_header(kid="first"), "wrong_algorithm"),
        (lambda: signed_by(OTHER, "second"), "unknown_key_id"),
        (lambda: signed_by(OTHER, "first"), "bad_signature"),
        (lambda: signed_by(Signer(None), ""), "bad_signature"),
        (lambda: SIGNER.token() + "A", "bad_signature"),
        (lambda: "no.token.atall", "malformed"),
        (lambda: "notoken", "malformed"),
        (lambda: encoded(b"[" * 3000) + ".e30.", "malformed"),
    ],
)
def test_a_token_that_no_known_key_has_signed_is_refused(refused, make, reason):
    refused(make(), reason)


def test_permissions_are_those_of_the_claim(start, client_of, keys):
    server = start(**jwt_settings(jwt_keys=str(keys), jwt_permissions_claim="urn:attendant"))
    allowed: Any = {"methods": ["Embed", "ListModels"], "models": ["tiny-bert"]}
    client = client_of(server, token=SIGNER.token(**{"urn:attendant": allowed}))
    assert [model.name for model in client.models()] == ["tiny-bert"]
    assert client.embed("The dog.").vector.shape
    with pytest.raises(PermissionDeniedError, match="may not call Translate"):
        client.translate("The dog.")


@pytest.mark.parametrize("signer", [Signer(None), Signer(None, "EC")])
def test_keys_may_be_pem_files_and_change_without_a_restart(start, client_of, tmp_path, signer):
    path = tmp_path / "keys.pem"
    path.write_bytes(signer.public_pem)
    server = start(**jwt_settings(jwt_keys=str(path)))
    client = client_of(server, token=signer.token())
    assert is_known(client)
    path.write_bytes(OTHER.public_pem)
    wait_until(lambda: is_known(client_of(server, token=OTHER.token())))
    assert not is_known(client)  # although its token was verified before


def test_a_shared_secret_verifies_tokens_if_it_is_asked_for(start, client_of, tmp_path):
    path, secret = tmp_path / "secret", "s" * 32
    path.write_text(secret + "\n")
    settings = jwt_settings(jwt_secret=str(path), jwt_algorithms=("HS256",))
    server = start(**settings)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60}
    for key, accepted in ((secret, True), ("t" * 32, False)):
        token = jwt.encode(claims, key, "HS256")
        assert is_known(client_of(server, token=token)) is accepted
    path.write_text("short")
    with pytest.raises(StartError, match="at least 32 bytes, got 5"):
        start(**settings)
    path.write_bytes(SIGNER.public_pem)
    with pytest.raises(StartError, match="not a PEM key"):
        start(**settings)


def test_a_shared_secret_is_in_no_repr(tmp_path):
    path = tmp_path / "secret"
    path.write_text("s" * 32)
    path.chmod(0o600)
    assert "ssss" not in repr(read_secret(path, ["HS256"]).candidates(None, "HS256"))


def test_api_keys_and_tokens_work_side_by_side(start, client_of, keys, key_file):
    key = key_file.add("search")
    server = start(**jwt_settings(jwt_keys=str(keys), api_keys=str(key_file.path)))
    for token, accepted in (
        (key, True),
        (SIGNER.token(), True),
        ("wrong", False),
        ("a.b.c", False),
    ):
        assert is_known(client_of(server, token=token)) is accepted


class FixedKeys:
    def __init__(self, value: TokenKeys) -> None:
        self.value = value

    async def refresh_keys(self) -> None:
        """There are no others."""


def verifier_of(
    keys: TokenKeys,
    *algorithms: str,
    skew_seconds: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> TokenVerifier:
    rules = TokenRules(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=algorithms,
        clock_skew_seconds=skew_seconds,
        permissions_claim="attendant",
    )
    return TokenVerifier(FixedKeys(keys), rules, clock)


PRIVATE_KEYS: dict[str, Any] = {
    "RS": SIGNER.key,
    "PS": SIGNER.key,
    "ES256": ELLIPTIC.key,
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", ASYMMETRIC_ALGORITHMS)
def test_every_algorithm_verifies_with_its_kind_of_key_only(algorithm: str):
    private = PRIVATE_KEYS.get(algorithm) or PRIVATE_KEYS[algorithm[:2]]
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60}
    token = jwt.encode(claims, private, algorithm)
    verifier = verifier_of(TokenKeys([TokenKey(private.public_key())]), algorithm)
    assert asyncio.run(verifier.caller(token)).name == "jwt:alice"
    others = [key for key in PRIVATE_KEYS.values() if type(key) is not type(private)]
    keys = TokenKeys([TokenKey(key.public_key()) for key in others])
    with pytest.raises(Unauthenticated) as failure:
        asyncio.run(verifier_of(keys, algorithm).caller(token))
    assert failure.value.reason == "unknown_key_id"


def test_the_memory_of_verified_tokens_is_bounded():
    verifier = verifier_of(parse_key_set(key_set(ELLIPTIC)), "ES256")

    async def verify_many() -> None:
        for number in range(MAX_CACHED_TOKENS + 20):
            await verifier.caller(ELLIPTIC.token(jti=str(number)))

    asyncio.run(verify_many())
    assert len(verifier._verified) == MAX_CACHED_TOKENS


def test_a_verified_token_is_refused_once_it_has_expired(start, client_of, keys):
    server = start(**jwt_settings(jwt_keys=str(keys), jwt_clock_skew_seconds=0))
    client = client_of(server, token=SIGNER.token(exp=int(time.time()) + 2))
    assert is_known(client)
    wait_until(lambda: not is_known(client))


@pytest.mark.parametrize(
    ("seconds", "fault"),
    [
        (60, ""),
        (110, ""),
        (129, ""),
        (130, "expired"),
        (5000, "expired"),
        (30, ""),
        (29, "not_yet_valid"),
        (-5000, "not_yet_valid"),
    ],
)
@pytest.mark.parametrize("is_remembered", [False, True])
def test_a_jump_of_the_clock_is_forgiven_within_the_skew_only(
    seconds: int, fault: str, is_remembered: bool
):
    start = 2_000_000_000  # the token is valid from 50 to 110 seconds after it
    now = start + 60.0
    verifier = verifier_of(
        parse_key_set(key_set(ELLIPTIC)), "ES256", skew_seconds=20, clock=lambda: now
    )
    token = ELLIPTIC.token(nbf=start + 50, iat=start + 40, exp=start + 110)

    def found() -> str:
        try:
            return asyncio.run(verifier.caller(token)).name
        except Unauthenticated as error:
            return error.reason

    if is_remembered:
        assert found() == "jwt:alice"
    now = start + seconds
    assert found() == (fault or "jwt:alice")
    now = start + 60.0  # the clock was set right again
    assert found() == "jwt:alice"


def test_a_token_that_is_issued_later_than_the_clock_tells_is_refused_beyond_the_skew():
    now = 2_000_000_000.0
    verifier = verifier_of(
        parse_key_set(key_set(ELLIPTIC)), "ES256", skew_seconds=20, clock=lambda: now
    )
    token = ELLIPTIC.token(iat=now + 30, exp=now + 90)
    with pytest.raises(Unauthenticated) as failure:
        asyncio.run(verifier.caller(token))
    assert failure.value.reason == "not_yet_valid"
    now += 10
    assert asyncio.run(verifier.caller(token)).name == "jwt:alice"
