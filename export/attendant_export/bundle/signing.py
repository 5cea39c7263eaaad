"""Signs the manifest of a bundle. The only module that knows private keys."""

from pathlib import Path

from attendant_manifest.rules import SIGNATURE_NAME
from attendant_manifest.signatures import format_signature, key_id
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from attendant_export.bundle.exchange import sync
from attendant_export.bundle.manifest import MANIFEST, check_files, read_manifest
from attendant_export.bundle.scratch import locked


def sign_bundle(folder: Path, key_file: Path) -> str:
    """Write the signature of the bundle's manifest beside it; returns a one-line summary.

    Raises BundleError for a damaged bundle, and ValueError unless ``key_file`` is an Ed25519 key in
    PEM without a password.
    """
    key, folder = _read_key(key_file), folder.resolve()
    manifest = read_manifest(folder)
    with locked(folder, folder):
        check_files(folder, manifest)
        public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        signature = key.sign((folder / MANIFEST).read_bytes())
        temporary = folder / f".{SIGNATURE_NAME}.new"
        temporary.write_text(format_signature(public_key, signature), encoding="ascii")
        sync(temporary)
        temporary.replace(folder / SIGNATURE_NAME)
    return f"{manifest.name}/{manifest.version}: signed with the key {key_id(public_key)}"


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # TypeError: the key has a password
        raise ValueError(f"{path}: is not a private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: is not an Ed25519 key")
    return key
