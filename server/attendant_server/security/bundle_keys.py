"""The public keys whose signatures of manifests the server accepts."""

from pathlib import Path

from attendant_manifest.signatures import key_id, parse_signature
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from attendant_server.security.watching import FileFault, read_file

_BEGIN = b"-----BEGIN "


class BundleKeys:
    """A set of Ed25519 keys. Several at a time allow a key to be replaced."""

    def __init__(self, path: Path) -> None:
        """Read PEM files: ``path``, or all files ``*.pem`` of this folder. Raises FileFault."""
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        self._keys = {id_: key for file in files for id_, key in _read_keys(file).items()}
        if not self._keys:
            raise FileFault(f"{path}: has no files *.pem")

    def check(self, manifest: bytes, signature_file: bytes) -> None:
        """Raise ValueError unless one of the keys signed this manifest."""
        stated_id, signature = parse_signature(signature_file)
        key = self._keys.get(stated_id)
        if key is None:
            known = ", ".join(sorted(self._keys))
            raise ValueError(f"the key {stated_id[:64]!r} is not among the bundle keys: {known}")
        try:
            key.verify(signature, manifest)
        except InvalidSignature:
            raise ValueError(
                "does not fit the manifest, which was changed after it was signed"
            ) from None


def _read_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """The keys in a PEM file by their ids; raises FileFault."""
    keys = {}
    for part in read_file(path).split(_BEGIN)[1:]:
        try:
            key = load_pem_public_key(_BEGIN + part)
        except (ValueError, UnsupportedAlgorithm):
            raise FileFault(f"{path}: must hold public keys in PEM only") from None
        if not isinstance(key, Ed25519PublicKey):
            raise FileFault(f"{path}: must hold Ed25519 keys only")
        keys[key_id(key.public_bytes(Encoding.Raw, PublicFormat.Raw))] = key
    if not keys:
        raise FileFault(f"{path}: has no public key in PEM")
    return keys
