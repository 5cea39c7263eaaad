"""The file of `attendant translate --glossary-file`, which has the form of the server's files."""

import argparse
import re

import pytest
from attendant_client.glossary_flags import add_glossary_flags


def entries(file) -> dict[str, list[str]]:
    parser = argparse.ArgumentParser()
    add_glossary_flags(parser)
    found: dict[str, list[str]] = parser.parse_args(["--glossary-file", str(file)]).glossary_entries
    return found


def test_a_file_is_read_by_the_rules_of_the_server(tmp_path):
    file = tmp_path / "terms.tsv"
    lines = [
        "# comment\r",
        "big  cat\tgroßer\u2028Kater\r",
        "",
        "dog\tX",
        "dog\tHu\u0308ndin\tRüde",
    ]
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    assert entries(file) == {"big cat": ["gro\u00dfer Kater"], "dog": ["H\u00fcndin", "R\u00fcde"]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"dog\tHund\ncat\n", r"terms\.tsv: line 2\.targets: must have between 1 and 16 values"),
        (b"cat\t\tKater\n", r"terms\.tsv: line 1\.targets\[0\]: must not be empty"),
        (b"cat\t" + b"K" * 201, r"terms\.tsv: line 1\.targets\[0\]: at most 200 characters"),
        (b"cat\tK\xff", r"terms\.tsv: is not UTF-8"),
        (b"cat\tKater\n" * 10_001, r"terms\.tsv: has more than 10000 entries"),
        (b"#" * 8_000_001, r"terms\.tsv: has more than 8000000 bytes"),
    ],
    ids=["no target", "empty", "long", "not UTF-8", "entries", "bytes"],
)
def test_a_bad_file_ends_the_command(tmp_path, capsys, content, problem):
    file = tmp_path / "terms.tsv"
    file.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        entries(file)
    assert re.search(problem, capsys.readouterr().err)


def test_a_missing_file_ends_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        entries(tmp_path / "terms.tsv")
    assert "cannot be read: [Errno 2]" in capsys.readouterr().err
