"""The keys that verify JSON Web Tokens: public keys, as a JWK Set or PEM, or a shared secret."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from attendant_server.security.watching import (
    FileFault,
    read_file,
    warn_if_readable_by_others,
)
from attendant_server.setting_rules import SYMMETRIC_ALGORITHMS

MAX_KEYS = 32
"""A token without a key id is compared with all keys."""
MIN_RSA_BITS = 2048
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key, with the id and the algorithm that its set states."""

    key: Any = field(repr=False)
    """A public key of ``cryptography``, or a secret."""
    key_id: str | None = None
    algorithm: str | None = None

    def fits(self, algorithm: str) -> bool:
        """Whether this kind of key may verify this algorithm."""
        if self.algorithm not in (None, algorithm):
            return False
        if algorithm in SYMMETRIC_ALGORITHMS:
            return isinstance(self.key, bytes)
        if algorithm in _CURVES:
            is_curve = isinstance(self.key, ec.EllipticCurvePublicKey)
            return is_curve and self.key.curve.name == _CURVES[algorithm]
        if algorithm == "EdDSA":
            return isinstance(self.key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        return isinstance(self.key, rsa.RSAPublicKey)


class TokenKeys:
    """A set of keys."""

    def __init__(self, keys: Sequence[TokenKey] = ()) -> None:
        self._keys = keys

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._keys)

    def candidates(self, key_id: str | None, algorithm: str) -> list[TokenKey]:
        """The keys that may have signed a token with this header."""
        return [
            key
            for key in self._keys
            if key.fits(algorithm) and (key_id is None or key.key_id in (None, key_id))
        ]


def read_public_keys(path: Path) -> TokenKeys:
    """The keys of a JWK Set, or of PEM keys and certificates; raises FileFault."""
    content = read_file(path)
    try:
        return _pem_keys(content) if b"-----BEGIN " in content else parse_key_set(content)
    except ValueError as error:
        raise FileFault(f"{path}: {error}") from None


def read_secret(path: Path, algorithms: Sequence[str]) -> TokenKeys:
    """The shared secret in a file, without white space around it; raises FileFault."""
    secret = read_file(path).strip()
    # As long as the longest hash (RFC 7518, section 3.2).
    min_bytes = max(int(algorithm.removeprefix("HS")) // 8 for algorithm in algorithms)
    if len(secret) < min_bytes:
        raise FileFault(f"{path}: must have at least {min_bytes} bytes, got {len(secret)}")
    if b"-----BEGIN " in secret:
        raise FileFault(f"{path}: must be a secret, not a PEM key")
    warn_if_readable_by_others(path)
    return TokenKeys([TokenKey(secret)])


def parse_key_set(content: bytes) -> TokenKeys:
    """The usable keys of a JWK Set; raises ValueError, without any content of the set.

    Other keys are left out, as RFC 7517 wants it: shared secrets, private keys, keys for
    encryption and of unknown kinds.
    """
    try:
        document = json.loads(content)
        entries = list(document["keys"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("is not a JWK Set") from None
    keys = [key for entry in entries for key in _jwk(entry)]
    if not keys:
        raise ValueError("has no public RSA, EC or OKP key for signatures")
    return _limited(keys)


def _jwk(entry: Any) -> Iterator[TokenKey]:
    is_public = isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC", "OKP")
    if not is_public or "d" in entry or entry.get("use", "sig") != "sig":
        return
    try:
        key, may_verify = jwt.PyJWK(entry).key, "verify" in entry.get("key_ops", ["verify"])
    except Exception:  # of many kinds; a faulty entry must not disable the others
        return
    if may_verify and _is_strong(key):
        key_id, algorithm = entry.get("kid"), entry.get("alg")
        yield TokenKey(key, key_id if isinstance(key_id, str) else None, algorithm)


def _pem_keys(content: bytes) -> TokenKeys:
    keys = []
    for found in _PEM.finditer(content):
        if found[1].endswith(b"PRIVATE KEY"):
            raise ValueError("holds a private key; give the public one")
        try:
            if found[1] == b"CERTIFICATE":
                key: Any = x509.load_pem_x509_certificate(found[0]).public_key()
            else:
                key = load_pem_public_key(found[0])
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("holds a PEM key that cannot be read") from None
        if not _is_strong(key):
            raise ValueError(f"holds an RSA key of less than {MIN_RSA_BITS} bits")
        keys.append(TokenKey(key))
    return _limited(keys)


def _limited(keys: list[TokenKey]) -> TokenKeys:
    if not 0 < len(keys) <= MAX_KEYS:
        raise ValueError(f"must have 1 to {MAX_KEYS} keys")
    return TokenKeys(keys)


def _is_strong(key: Any) -> bool:
    return not isinstance(key, rsa.RSAPublicKey) or key.key_size >= MIN_RSA_BITS
