"""The file of `attendant translate --glossary-file`, which has the form of the server's files."""

import argparse

import pytest
from attendant_client.glossary_flags import add_glossary_flags


def entries(file) -> dict[str, list[str]]:
    parser = argparse.ArgumentParser()
    add_glossary_flags(parser)
    found: dict[str, list[str]] = parser.parse_args(["--glossary-file", str(file)]).glossary_entries
    return found


def test_only_line_ends_separate_the_entries_of_a_file(tmp_path):
    file = tmp_path / "terms.tsv"
    file.write_bytes(
        "\ufeff# comment\r\nbig\x0ccat\tgroßer\u2028Kater\r\n\ndog\tHund\tRüde".encode()
    )
    assert entries(file) == {"big\x0ccat": ["großer\u2028Kater"], "dog": ["Hund", "Rüde"]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"cat\n", "cat has no translation after a tab"), (b"cat\tK\xff", "cannot be read")],
)
def test_a_bad_file_ends_the_command(tmp_path, capsys, content, problem):
    file = tmp_path / "terms.tsv"
    file.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        entries(file)
    assert problem in capsys.readouterr().err
