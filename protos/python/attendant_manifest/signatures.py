"""The form of the file with a manifest's signature: one line of algorithm, key id and signature.

The signature is an Ed25519 signature of the bytes of ``manifest.json``, which state the SHA-256 of
every other file of the bundle. Computes and verifies no signatures.
"""

import base64
import hashlib
from typing import NamedTuple

MAX_SIGNATURE_FILE_BYTES = 1024
_ALGORITHM = "ed25519"
_SIGNATURE_BYTES = 64


class ManifestSignature(NamedTuple):
    """A signature and the id of the key that made it."""

    key_id: str
    signature: bytes


def key_id(public_key: bytes) -> str:
    """The id of a raw public key: the beginning of its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def format_signature(public_key: bytes, signature: bytes) -> str:
    """The text of the file with a signature."""
    return f"{_ALGORITHM} {key_id(public_key)} {base64.b64encode(signature).decode()}\n"


def parse_signature(content: bytes) -> ManifestSignature:
    """The signature in the content of a file. Raises ValueError."""
    try:
        algorithm, stated_id, encoded = content.decode("ascii").split()
        signature = base64.b64decode(encoded, validate=True)
    except ValueError:
        algorithm, stated_id, signature = "", "", b""
    if algorithm != _ALGORITHM or len(signature) != _SIGNATURE_BYTES:
        raise ValueError(f"is not a line of {_ALGORITHM}, a key id and a signature in base64")
    return ManifestSignature(stated_id, signature)
