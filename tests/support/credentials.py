"""Real certificates, keys and tokens for tests."""

import datetime
import ipaddress
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from attendant_client import UnauthenticatedError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

ISSUER, AUDIENCE = "https://identity.example", "attendant-tests"
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """The paths of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        certificate = _certificate(self._name, self._name, self._key, self._key, is_authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(pem_of(certificate))

    def issue(
        self,
        name: str,
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        days: float = 1,
        folder: Path | None = None,
    ) -> Files:
        """Write a certificate and its key, valid for so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(_subject(name), self._name, key, self._key, hosts, days=days)
        files = Files(*((folder or self._folder) / f"{name}.{kind}" for kind in ("crt", "key")))
        files.cert.write_bytes(pem_of(certificate))
        files.key.write_bytes(private_pem_of(key))
        files.key.chmod(0o600)
        return files


class Signer:
    """A key pair of an identity provider, with a key id."""

    def __init__(self, key_id: str | None = "first", kind: str = "RSA") -> None:
        self.key_id = key_id
        self.key: Any = (
            rsa.generate_private_key(65537, 2048)
            if kind == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.algorithm = "RS256" if kind == "RSA" else "ES256"

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def jwk(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        jwk = algorithm.to_jwk(self.key.public_key(), as_dict=True)
        return jwk | ({"kid": self.key_id} if self.key_id else {})

    def token(self, without: Sequence[str] = (), **claims: Any) -> str:
        """A token that is valid but for the claims that are changed or left out."""
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": time.time() + 600,
        } | claims
        payload = {name: value for name, value in payload.items() if name not in without}
        headers = {"kid": self.key_id} if self.key_id else None
        return jwt.encode(payload, self.key, self.algorithm, headers)


def key_set(*signers: Signer) -> bytes:
    """The JWK Set of the signers' public keys."""
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()


def jwt_settings(**values: Any) -> dict[str, Any]:
    """Settings of a server for the tokens of signers, with further values."""
    return {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE} | values


def is_known(client: Any) -> bool:
    """Whether a server accepts the token of a client."""
    try:
        client.models()
    except UnauthenticatedError:
        return False
    return True


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem_of(key: Any, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str] = (),
    days: float = 1,
    is_authority: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if is_authority:
        usage = dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                "key_agreement", "encipher_only", "decipher_only",
            ),
            False,
        )  # fmt: skip
        usage |= {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    if hosts:
        names = x509.SubjectAlternativeName(list(map(_general_name, hosts)))
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def signing_key(private: Path, public: Path) -> None:
    """Write a new Ed25519 key and its public part."""
    key = ed25519.Ed25519PrivateKey.generate()
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
