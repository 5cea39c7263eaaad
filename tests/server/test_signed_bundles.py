"""With bundle keys, only bundles with a valid signature of one of the keys are read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from attendant_export.bundle.signing import sign_bundle
from attendant_server.bundles import BundleError
from attendant_server.loading import read_bundles
from attendant_server.settings import Settings

from tests.support.credentials import signing_key

BUNDLE = Path(__file__).parents[1] / "recorded/bundles/tiny-en-de/1"


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A signed bundle; its key is ``a.key``, and ``keys`` has the public keys of a and b."""
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundles" / "tiny-en-de" / "1")
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("a", "b"):
        signing_key(tmp_path / f"{name}.key", keys / f"{name}.pem")
    signing_key(tmp_path / "stranger.key", tmp_path / "stranger.pem")
    sign_bundle(bundle, tmp_path / "a.key")
    return bundle


def read(bundle: Path, keys: str = "keys") -> None:
    root = bundle.parents[1]
    [found] = read_bundles(Settings(bundles=root, bundle_keys=str(root.parent / keys)), ())
    found.check_files()


@pytest.mark.parametrize("key", ["a", "b"])
def test_a_bundle_signed_by_any_of_the_keys_is_read(signed: Path, key: str):
    sign_bundle(signed, signed.parents[2] / f"{key}.key")
    read(signed)
    read(signed, f"keys/{key}.pem")


def test_one_file_may_hold_several_keys(signed: Path):
    folder = signed.parents[2]
    both = "".join((folder / f"keys/{name}.pem").read_text() for name in "ab")
    (folder / "both.pem").write_text(both)
    read(signed, "both.pem")


def test_without_bundle_keys_signatures_are_not_looked_at(signed: Path):
    (signed / "manifest.json.sig").write_text("nonsense")
    [bundle] = read_bundles(Settings(bundles=signed.parents[1]), ())
    bundle.check_files()


def append_a_space(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")


def make_the_manifest_unreadable(bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(b"{" * 5000)


def remove_the_signature(bundle: Path) -> None:
    (bundle / "manifest.json.sig").unlink()


def sign_as_a_stranger(bundle: Path) -> None:
    sign_bundle(bundle, bundle.parents[2] / "stranger.key")


def signature_of(content: bytes) -> Callable[[Path], object]:
    return lambda bundle: (bundle / "manifest.json.sig").write_bytes(content)


def claim_another_key(bundle: Path) -> None:
    sign_as_a_stranger(bundle)
    signature = (bundle / "manifest.json.sig").read_text().split()
    sign_bundle(bundle, bundle.parents[2] / "a.key")
    _, known_id, _ = (bundle / "manifest.json.sig").read_text().split()
    (bundle / "manifest.json.sig").write_text(f"ed25519 {known_id} {signature[2]}")


def replace_by_a_link(bundle: Path) -> None:
    path = bundle / "manifest.json.sig"
    path.rename(bundle.parents[2] / "elsewhere")
    path.symlink_to(bundle.parents[2] / "elsewhere")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no signature": (remove_the_signature, "is missing; with bundle_keys, every bundle must be"),
    "a stranger's key": (sign_as_a_stranger, "is not among the bundle keys"),
    "a changed manifest": (append_a_space, "does not fit the manifest"),
    "no manifest, and it is not parsed": (make_the_manifest_unreadable, "does not fit the manif"),
    "a key that is claimed": (claim_another_key, "does not fit the manifest"),
    "an empty file": (signature_of(b""), "is not a line of ed25519"),
    "another algorithm": (signature_of(b"rsa 00 AAAA"), "is not a line of ed25519"),
    "a short signature": (signature_of(b"ed25519 00 AAAA"), "is not a line of ed25519"),
    "bytes that are no text": (signature_of(b"\xff" * 64), "is not a line of ed25519"),
    "a huge file": (signature_of(bytes(2000)), "larger than 1024 bytes"),
    "a symbolic link": (replace_by_a_link, "is a symbolic link"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bundle_without_a_valid_signature_is_refused_by_its_name(
    signed: Path, change: Callable[[Path], object], reason: str
):
    change(signed)
    with pytest.raises(BundleError, match=f"/tiny-en-de/1/manifest.json.sig: .*{reason}"):
        read(signed)


def test_a_file_that_the_signed_manifest_lists_is_still_hashed(signed: Path):
    weights = signed / "weights.int8.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="its SHA-256 is not the one in the manifest"):
        read(signed)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "public keys in PEM"),
        (None, "public keys in PEM only"),
    ],
    ids=["empty", "damaged", "a private key"],
)
def test_files_that_hold_no_public_key_are_refused(
    signed: Path, content: bytes | None, reason: str
):
    folder = signed.parents[2]
    private = (folder / "a.key").read_bytes()
    (folder / "bad.pem").write_bytes(private if content is None else content)
    with pytest.raises(BundleError, match=f"bundle_keys: .*bad.pem: .*{reason}") as error:
        read(signed, "bad.pem")
    assert private.splitlines()[1].decode() not in str(error.value)


def test_a_folder_without_keys_and_a_missing_file_are_refused(signed: Path):
    with pytest.raises(BundleError, match=r"bundle_keys: .*/bundles: has no files \*\.pem"):
        read(signed, "bundles")
    with pytest.raises(BundleError, match="bundle_keys: .*No such file"):
        read(signed, "missing.pem")
