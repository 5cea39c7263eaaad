"""Signatures of bundles that the exporter writes."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import BundleError, check_files, read_manifest
from attendant_export.bundle.signing import sign_bundle
from attendant_export.bundle.upgrade import upgrade_bundle

OLD = next((Path(__file__).parents[2] / "tests/recorded/bundles").glob("*/*"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / OLD.parent.name / OLD.name))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key as docs/security.md makes it."""
    path = tmp_path / "signing.key"
    openssl("genpkey", "-algorithm", "ed25519", "-out", path)
    return path


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def test_openssl_verifies_the_signature(bundle: Path, key: Path, tmp_path: Path):
    main(["sign", str(bundle), "--key", str(key)])
    algorithm, key_id, signature = (bundle / "manifest.json.sig").read_text().split()
    assert (algorithm, len(key_id)) == ("ed25519", 16)
    (tmp_path / "raw").write_bytes(base64.b64decode(signature))
    openssl("pkey", "-in", key, "-pubout", "-out", tmp_path / "public.pem")
    openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "public.pem", "-rawin"),
        *("-in", bundle / "manifest.json", "-sigfile", tmp_path / "raw"),
    )


def test_a_signed_bundle_is_whole_and_may_be_signed_again(bundle: Path, key: Path):
    for _ in range(2):
        assert "signed with the key" in sign_bundle(bundle, key)
        check_files(bundle, read_manifest(bundle))


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: Path):
    (bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="tokenizer.json"):
        sign_bundle(bundle, key)
    assert not (bundle / "manifest.json.sig").exists()


def test_an_upgrade_removes_the_signature_of_the_earlier_manifest(bundle: Path, key: Path):
    assert json.loads((bundle / "manifest.json").read_text())["manifest_version"] == 1
    sign_bundle(bundle, key)
    upgrade_bundle(bundle)
    assert not (bundle / "manifest.json.sig").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-algorithm", "rsa"], "is not an Ed25519 key"),
        (["-algorithm", "ed25519", "-aes256", "-pass", "pass:secret"], "without a password"),
        (None, "is not a private key in PEM"),
    ],
    ids=["RSA", "a password", "no key"],
)
def test_other_keys_are_refused_in_one_line(
    bundle: Path, tmp_path: Path, options: list[str] | None, reason: str, capsys
):
    path = tmp_path / "other.key"
    path.write_text("nothing")
    if options is not None:
        openssl("genpkey", *options, "-out", path)
    with pytest.raises(SystemExit, match="2"):
        main(["sign", str(bundle), "--key", str(path)])
    assert reason in capsys.readouterr().err
