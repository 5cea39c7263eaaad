"""The server's certificate and key, and the authorities of its callers' certificates."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from attendant_server.security.watching import (
    PERIOD_SECONDS,
    FileFault,
    WatchedFiles,
    read_file,
    warn_if_readable_by_others,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A checked certificate with its key. The contents are PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    client_authorities: bytes | None
    """Callers must have a certificate of one of these; None if they need none."""
    expires: datetime
    """When the first certificate of the chain to expire does."""
    context: ssl.SSLContext
    """For servers of Python's standard library."""


def watched_certificate(
    chain: Path, key: Path, client_authorities: Path | None
) -> WatchedFiles[Certificate]:
    """The certificate in these files; raises FileFault."""
    paths = [chain, key, *([client_authorities] if client_authorities else [])]
    return WatchedFiles(paths, lambda: _read(chain, key, client_authorities))


def _now() -> datetime:
    return datetime.now(UTC)


async def watch_expiry(
    file: Path,
    certificate: WatchedFiles[Certificate],
    period_seconds: float = PERIOD_SECONDS,
    clock: Callable[[], datetime] = _now,
) -> None:
    """Log once for each certificate that it has expired, now or later, until cancelled."""
    told: Certificate | None = None
    while True:
        value = certificate.value
        if value is not told and value.expires <= clock():
            told, expired = value, value.expires.isoformat()
            logger.error("event=certificate_expired file=%s expired=%s", file, expired)
        await asyncio.sleep(period_seconds)


def _read(chain: Path, key: Path, client_authorities: Path | None) -> Certificate:
    chain_pem, key_pem = read_file(chain), read_file(key)
    certificates = _certificates(chain, chain_pem)
    _check_key(key, key_pem, chain, certificates[0])
    warn_if_readable_by_others(key)
    authorities = None
    if client_authorities:
        authorities = read_file(client_authorities)
        _certificates(client_authorities, authorities)
    expires = min(certificate.not_valid_after_utc for certificate in certificates)
    context = _context(chain, key, authorities)
    return Certificate(chain_pem, key_pem, authorities, expires, context)


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise FileFault(f"{path}: holds no PEM certificate that can be read") from error


def _check_key(path: Path, pem: bytes, chain: Path, certificate: x509.Certificate) -> None:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise FileFault(f"{path}: the private key is encrypted; give it without a password") from (
            error
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FileFault(f"{path}: holds no PEM private key that can be read") from error
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise FileFault(f"{path}: is not the key of the first certificate in {chain}")


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _context(chain: Path, key: Path, authorities: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(chain, key)
        if authorities is not None:
            context.load_verify_locations(cadata=authorities.decode())
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # the files may just be changing
        raise FileFault(f"{chain}: cannot be used with {key}: {error}") from error
    return context
