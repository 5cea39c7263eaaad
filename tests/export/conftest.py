"""Fixtures of tests that import checkpoints by the command."""

import pytest
from attendant_export.__main__ import main

from tests.conftest import imports_compare_one_of


@pytest.fixture(scope="session", autouse=True)
def imports_with_few_texts():
    """Imports compare 16 instead of 64 sample texts; in `make test-all`, all of them."""
    with imports_compare_one_of(4):
        yield


@pytest.fixture
def refusal(tmp_path, capsys):
    """Imports a checkpoint, which must fail with one line and leave nothing; returns the line."""

    def import_refused(source, *options, code=2):
        bundles = tmp_path / "refused"
        with pytest.raises(SystemExit) as stop:
            main(["import", str(source), "--bundles-dir", str(bundles), *options])
        assert stop.value.code == code
        assert not bundles.exists() or not list(bundles.iterdir())
        message = capsys.readouterr().err
        assert message.startswith("attendant-export: ")
        assert message.count("\n") == 1
        return message

    return import_refused
