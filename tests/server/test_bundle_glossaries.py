"""Glossaries of bundles are read with the same checks as those of a folder."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from attendant_glossaries import MAX_FILE_BYTES
from attendant_server import memory_need
from attendant_server.bundle_glossaries import read_glossaries
from attendant_server.bundles import Bundle, BundleError, read_bundle
from attendant_server.memory_need import needed_bytes

from tests.support.manifests import content_of, translation_manifest


def bundle_with(folder: Path, content: bytes) -> Bundle:
    """A bundle with the glossary ``animals``."""
    manifest: dict[str, Any] = translation_manifest()
    files = {file["path"]: content_of(file["path"]) for file in manifest["files"]}
    files["glossaries/animals.tsv"] = content
    sha256 = hashlib.sha256(content).hexdigest()
    manifest["files"].append(
        {"path": "glossaries/animals.tsv", "sha256": sha256, "size_bytes": str(len(content))}
    )
    manifest["glossaries"] = ["animals"]
    manifest["architecture"]["decoder"]["groups"][0]["cross_attention"] = {"num_heads": 1}
    manifest["alignment"] = {"heads": [{}]}
    for precision in manifest["precisions"]:
        precision["aligner"] = precision["scorer"]
    (folder / "en-de/1/glossaries").mkdir(parents=True)
    for path, written in files.items():
        (folder / "en-de/1" / path).write_bytes(written)
    (folder / "en-de/1/manifest.json").write_text(json.dumps(manifest))
    return read_bundle(folder / "en-de/1", "auto", "cpu")


def test_the_glossaries_of_a_bundle_are_read_from_its_checked_copy(tmp_path):
    with bundle_with(tmp_path, b"# animals\ncat\tKater\tKaters\n").checked_copy() as copy:
        (tmp_path / "en-de/1/glossaries/animals.tsv").write_bytes(b"dog\tHund\n")
        found = read_glossaries(copy)
    matches = {name: found[name].matches("cat dog") for name in found}
    assert {name: [each.entry.source for each in own] for name, own in matches.items()} == {
        "animals": ["cat"]
    }


def test_a_glossary_that_is_not_what_the_manifest_says_is_refused(tmp_path):
    bundle = bundle_with(tmp_path, b"cat\tKater\n")
    (tmp_path / "en-de/1/glossaries/animals.tsv").write_bytes(b"cat\tKatze\n")
    with pytest.raises(BundleError, match=r"animals\.tsv: its SHA-256 is not the one"):
        bundle.check_files()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"cat\n", r"the glossary animals: line 1\.targets: must have between 1 and 16"),
        (b"cat\tK\xff", "the glossary animals: is not UTF-8"),
    ],
)
def test_a_bundle_with_a_broken_glossary_is_refused_by_its_file_and_line(
    tmp_path, content, problem
):
    with pytest.raises(BundleError, match=rf"glossaries/animals\.tsv: {problem}"):
        read_glossaries(bundle_with(tmp_path, content))


def test_a_glossary_larger_than_the_limit_is_refused_before_its_file_is_opened(tmp_path):
    bundle = bundle_with(tmp_path, b"cat\tKater\n")
    path = bundle.directory / "manifest.json"
    document = json.loads(path.read_text())
    [entry] = [file for file in document["files"] if file["path"].startswith("glossaries/")]
    entry["size_bytes"] = str(MAX_FILE_BYTES)
    path.write_text(json.dumps(document))
    read_bundle(bundle.directory, "auto", "cpu")
    entry["size_bytes"] = str(MAX_FILE_BYTES + 1)
    path.write_text(json.dumps(document))
    problem = r"files: glossaries/animals\.tsv must have at most 8000000 bytes, got 8000001"
    with pytest.raises(BundleError, match=problem):
        read_bundle(bundle.directory, "auto", "cpu")


NUM_ENTRIES = 700
"""Just more than fit a dictionary of 1024 places, which then takes the most memory."""
CYRILLIC = [chr(0x430 + i) for i in range(32)]
LINES = {
    "usual terms": ("term number {i}\tBegriff Nummer {i}", 6),
    "short terms": ("{i:x}\tx", 3),
    "short translations": ("{i:x}\t" + "\t".join(CYRILLIC[:16]), 2),
    "terms of many words": ("".join(map(chr, range(0x4E00, 0x4EC0))) + "{i}\tx", 6),
    "terms of many short words": (" ".join(CYRILLIC * 3) + " {i}\tx", 6),
    "wide characters": ("{i}\t" + "\t".join(["\U0001f600" + "b" * 199] * 4), 6),
    "composed terms": ("\u1100\u1161\u11a8" * 60 + "{i}\t" + "u\u0308" * 90, 10),
}


@pytest.mark.parametrize(("line", "most"), LINES.values(), ids=LINES)
def test_the_memory_of_a_glossary_counts_before_its_bundle_is_loaded(
    tmp_path, monkeypatch, line, most
):
    monkeypatch.setattr(memory_need, "MAX_ENTRIES", NUM_ENTRIES)
    content = "\n".join(line.format(i=i) for i in range(NUM_ENTRIES)).encode()
    small, large = (
        bundle_with(tmp_path / name, part)
        for name, part in (("small", b"cat\tKater\n"), ("large", content))
    )
    tracemalloc.start()
    glossaries = read_glossaries(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(glossaries) == {"animals"}
    assert peak <= needed_bytes(large) - needed_bytes(small) <= most * peak
