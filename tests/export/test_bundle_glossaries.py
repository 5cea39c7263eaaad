"""Bundles with glossaries."""

import shutil
from pathlib import Path

import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.glossaries import read_glossaries, read_glossary
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.signing import sign_bundle
from attendant_manifest.rules import SIGNATURE_NAME
from attendant_server.application.glossaries import parsed_glossary
from attendant_server.errors import GlossaryUnreadable

from tests.support.bundles import one_thread
from tests.support.credentials import signing_key

BERT = Path(__file__).parents[2] / "bundles/bert-en-de/2"


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_glossary_is_added_to_a_bundle_and_all_else_stays(translation_bundle, tmp_path, capsys):
    bundle = Path(shutil.copytree(translation_bundle, tmp_path / "tiny-en-de" / "1"))
    before, manifest = content_of(bundle), read_manifest(bundle)
    signing_key(tmp_path / "key", tmp_path / "public")
    sign_bundle(bundle, tmp_path / "key")
    first = written(tmp_path / "animals.tsv", b"cat\tKater\n")
    other = written(tmp_path / "trains.tsv", b"train station\tHaltestelle\n")
    with one_thread():
        main(["rebuild", str(bundle), "--glossary", str(first), "--glossary", str(other)])
        written(first, b"dog\tHund\n")
        main(["rebuild", str(bundle), "--glossary", str(first)])
    after = content_of(bundle)
    assert SIGNATURE_NAME not in after  # it was that of another manifest
    glossaries = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert glossaries == {
        "glossaries/animals.tsv": b"dog\tHund\n",
        "glossaries/trains.tsv": b"train station\tHaltestelle\n",
    }
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    changed = read_manifest(bundle)
    assert list(changed.glossaries) == ["animals", "trains"]
    assert (changed.parity, changed.quality) == (manifest.parity, manifest.quality)
    output = capsys.readouterr().out
    assert "tiny-en-de/1: has the glossary animals now" in output
    main(["inspect", str(bundle)])
    assert "glossaries  animals, trains" in capsys.readouterr().out.splitlines()


def test_an_embedding_model_gets_no_glossary(tmp_path, capsys):
    bundle = Path(shutil.copytree(BERT, tmp_path / "bert-en-de" / "1"))
    before = content_of(bundle)
    glossary = written(tmp_path / "animals.tsv", b"cat\tKater\n")
    with pytest.raises(SystemExit, match="2"), one_thread():
        main(["rebuild", str(bundle), "--glossary", str(glossary)])
    assert "--glossary is for translation models with an aligner" in capsys.readouterr().err
    assert content_of(bundle) == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"cat\n", r"line 1\.targets: must have between 1 and 16 values, got 0"),
        (b"#\n\ncat" + b"\tx" * 17, r"line 3\.targets: must have between 1 and 16 .*, got 17"),
        (b"\tKater\n", r"line 1\.source: must not be empty"),
        (b"cat\tx\t" + b"x" * 201, r"line 1\.targets\[1\]: at most 200 characters, got 201"),
        (("cat\t" + "\u0958" * 101).encode(), r"line 1\.targets\[0\]: .*, got 202"),  # composed
        (b"cat\tK\xff", "is not UTF-8"),
        (b"cat\tx\n" * 10_001, "has more than 10000 entries"),
        (b"#" * 8_000_001, "has more than 8000000 bytes"),
    ],
)
def test_what_a_server_would_refuse_is_refused_before_a_bundle_is_written(
    tmp_path, content, problem
):
    with pytest.raises(ValueError, match=rf"animals\.tsv: {problem}"):
        read_glossary(written(tmp_path / "animals.tsv", content))
    with pytest.raises(GlossaryUnreadable, match=f"the glossary animals: {problem}"):
        parsed_glossary("animals", content)


def test_two_glossaries_of_the_same_name_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "animals.tsv", tmp_path / "other" / "animals.tsv"]
    for path in paths:
        written(path, b"cat\tKater\n")
    with pytest.raises(ValueError, match=r"--glossary .*other/animals\.tsv: another one has the"):
        read_glossaries(paths)
    assert [each.name for each in read_glossaries(paths[:1])] == ["animals"]


def test_what_a_server_reads_is_taken_as_it_is(tmp_path):
    long = "o\u0308" * 200  # 200 characters once they are composed
    content = f"\ufeff# animals\r\nbig\x0ccat\tgroßer\u2028Kater\t{long}\t\r\n\r\n".encode()
    assert read_glossary(written(tmp_path / "animals.tsv", content)).content == content
    [(_, entry)] = parsed_glossary("animals", content).matches("big cat")
    assert (entry.source, entry.targets) == ("big cat", ["großer Kater", "ö" * 200])


@pytest.mark.parametrize("name", ["animals.csv", "animals", ".tsv", "ä.tsv", f"{'a' * 65}.tsv"])
def test_a_file_whose_name_makes_no_name_of_a_glossary_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"want NAME\.tsv"):
        read_glossary(written(tmp_path / name, b"cat\tKater\n"))
