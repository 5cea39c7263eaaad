"""Faults of registries, of downloads and of the disk are refused by name and leave nothing."""

import errno
import gzip

import pytest
from attendant_export.importers import firefox as firefox_module

from tests.support.firefox_files import REGISTRY

SOURCE = "firefox:en-fr"
MODEL = "model.enfr.intgemm.alphas.bin"


@pytest.fixture
def files(firefox):
    """The files of the one entry of the registry, by their role."""
    return firefox.models["en-fr"][0]["files"]


@pytest.fixture
def assert_nothing_is_left(cache):
    yield
    assert not [path for path in cache.rglob("*") if path.name.startswith(MODEL)]


@pytest.mark.parametrize(
    "source", ["firefox:", "firefox:en", "firefox:english-german", "firefox:/"]
)
def test_a_source_without_two_languages_is_refused(source, firefox, refusal):
    assert f"{source}: want firefox:SOURCE-TARGET with two languages" in refusal(source)
    assert firefox.requests == []


def test_an_unknown_pair_names_near_ones(firefox, student, refusal):
    for pair in ("en-de", "de-en", "fr-en", "cs-uk"):
        firefox.add_model(student, pair)
    message = refusal("firefox:en-fi")
    assert f"firefox:en-fi: {firefox.registry_url} has no such pair of languages; near" in message
    assert "en-fr" in message
    assert "en-de" in message
    assert "cs-uk" not in message


def test_a_pair_without_a_released_model_names_the_models(firefox, student, refusal):
    firefox.add_model(student, "en-de", "tiny", None)
    firefox.add_model(student, "en-de", "base", "Nightly")
    assert (
        "firefox:en-de: no model is released; --revision takes one of: tiny (not released), "
        "base (Nightly)"
    ) in refusal("firefox:en-de")
    message = refusal("firefox:en-de", "--revision", "large")
    assert "firefox:en-de: no model is large; --revision takes one of: tiny" in message


def test_a_registry_that_cannot_be_reached_is_named(firefox, refusal, monkeypatch):
    monkeypatch.setenv("ATTENDANT_FIREFOX_REGISTRY", "http://127.0.0.1:1/models.json")
    message = refusal(SOURCE)
    assert "the registry http://127.0.0.1:1/models.json cannot be downloaded: " in message
    assert "Connection refused" in message


@pytest.mark.parametrize("url", ["http://example.org/m.json", "file:///m.json", "ftp://x/m", "m"])
def test_a_registry_without_https_is_refused(url, cache, refusal, monkeypatch):
    monkeypatch.setenv("ATTENDANT_FIREFOX_REGISTRY", url)
    assert f"{url} is not an HTTPS URL, nor an HTTP URL of this machine" in refusal(SOURCE)


def test_a_redirect_to_another_machine_without_https_is_refused(firefox, refusal):
    firefox.answers[REGISTRY] = (302, {"Location": "http://example.org/models.json"})
    assert "http://example.org/models.json is not an HTTPS URL" in refusal(SOURCE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (b"[]", "is not a registry of Firefox Translations: want an object with baseUrl and"),
        (b'{"baseUrl": "https://x", "models": []}', "is not a registry of Firefox"),
        (b'{"baseUrl": "https://x", "models": {"en-fr": {}}}', "models.en-fr is not a list of"),
        (b'{"baseUrl": "https://x", "models": {"en-fr": [{"files": []}]}}', "models.en-fr is not"),
        (b'{"baseUrl": "https://x", "models": {"en-fr": [{"files": {}}]}}', "architecture is None"),
    ],
)
def test_a_registry_of_another_shape_is_refused(content, reason, firefox, refusal, cache):
    firefox.contents[REGISTRY] = content
    message = refusal(SOURCE)
    assert firefox.registry_url in message
    assert reason in message


@pytest.mark.parametrize(
    ("role", "field", "value", "reason"),
    [
        ("model", "uncompressedHash", None, "files.model.uncompressedHash is missing"),
        ("model", "uncompressedHash", "abc", "files.model.uncompressedHash is no SHA-256: 'abc'"),
        ("model", "uncompressedSize", "5", "files.model.uncompressedSize is '5'"),
        ("model", "path", "../../model.bin", "files.model.path is '../../model.bin', want a rel"),
        ("vocab", "path", "/etc/passwd", "files.vocab.path is '/etc/passwd', want a relative path"),
        ("vocab", "path", None, "files.vocab.path is None"),
        ("vocab", "path", ".gz", "files.vocab.path is '.gz', which has no name"),
    ],
)
def test_fields_of_an_entry_are_checked(role, field, value, reason, files, refusal):
    files[role][field] = value
    assert reason in refusal(SOURCE)


@pytest.mark.parametrize("role", ["model", "vocab"])
def test_an_entry_without_a_needed_file_is_refused(role, files, refusal):
    del files[role]
    expected = "srcVocab" if role == "vocab" else role
    assert f"models.en-fr, tiny: files.{expected} is missing" in refusal(SOURCE)


def test_two_files_of_the_same_name_are_refused(files, refusal):
    files["vocab"]["path"] = f"elsewhere/{MODEL}.gz"
    assert "models.en-fr, tiny: files: two files have the same name" in refusal(SOURCE)


@pytest.mark.usefixtures("assert_nothing_is_left")
def test_a_file_of_another_hash_is_refused(files, refusal):
    files["model"]["uncompressedHash"] = "ab" * 32
    message = refusal(SOURCE)
    assert f"{MODEL}.gz: the SHA-256 is " in message
    assert f"but the registry states {'ab' * 32}" in message


@pytest.mark.usefixtures("assert_nothing_is_left")
@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_refused(change, files, refusal):
    size = files["model"]["uncompressedSize"]
    files["model"]["uncompressedSize"] = size + change
    stated = f"but the registry states {size + 1:,}" if change > 0 else f"than {size - 1:,} bytes"
    assert stated in refusal(SOURCE)


@pytest.mark.usefixtures("assert_nothing_is_left")
def test_a_truncated_file_is_refused(firefox, files, refusal):
    path = files["model"]["path"]
    firefox.contents[path] = firefox.contents[path][:-20]
    assert f"{path}: the gzip file is damaged: " in refusal(SOURCE)


def test_a_damaged_vocabulary_is_refused_without_a_stated_hash(firefox, files, refusal, cache):
    path = files["vocab"]["path"]
    content = bytearray(firefox.contents[path])
    content[-30] ^= 255
    firefox.contents[path] = bytes(content)
    assert f"{path}: the gzip file is damaged: " in refusal(SOURCE)
    assert not list(cache.rglob("vocab*"))


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(
    firefox, files, refusal, cache, monkeypatch
):
    monkeypatch.setattr(firefox_module, "MAX_FILE_BYTES", 1_000_000)
    firefox.contents[files["vocab"]["path"]] = gzip.compress(bytes(10_000_000))
    assert "the file is larger than 1,000,000 bytes" in refusal(SOURCE)
    assert not list(cache.rglob("vocab*"))


@pytest.mark.usefixtures("assert_nothing_is_left")
def test_a_download_that_does_not_end_is_refused(firefox, files, refusal, monkeypatch):
    firefox.contents[files["model"]["path"]] = bytes(10_000_000)
    size = files["model"]["uncompressedSize"]
    assert f"the file is larger than {size + size // 100 + 2**16:,} bytes" in refusal(SOURCE)


def test_a_missing_file_is_named_with_its_status(firefox, files, refusal):
    del firefox.contents[files["lexicalShortlist"]["path"]]
    message = refusal(SOURCE)
    assert "lex.50.50.enfr.s2t.bin cannot be downloaded from " in message
    assert message.endswith("lex.50.50.enfr.s2t.bin.gz: status 404\n")


def test_a_server_that_fails_is_asked_again(firefox, files, refusal):
    firefox.answers[files["model"]["path"]] = (503, {})
    assert message_ends(refusal(SOURCE), "status 503")
    assert firefox.downloads() == [f"{MODEL}.gz"] * 4


def message_ends(message, reason):
    return message.endswith(f"{reason}\n")


@pytest.mark.usefixtures("assert_nothing_is_left")
def test_a_full_disk_is_named(firefox, refusal, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("attendant_export.importers.downloads._check_size", fail)
    assert "no space is left on the disk" in refusal(SOURCE)
