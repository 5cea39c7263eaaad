"""Fixtures of tests that import checkpoints by the command."""

import pytest
from attendant_export.__main__ import main
from hypothesis import settings

from tests.support.architectures import THOROUGH
from tests.support.bundles import one_thread
from tests.support.imports import ALL_TEXTS, FEW_TEXTS, imports_compare


@pytest.fixture(scope="session", autouse=True)
def texts_of_imports():
    """Imports compare a quarter of the sample texts; in `make test-all`, all of them."""
    is_thorough = settings.get_current_profile_name() == THOROUGH
    with imports_compare(ALL_TEXTS if is_thorough else FEW_TEXTS):
        yield


@pytest.fixture(scope="module")
def all_texts():
    """All sample texts, for models that can read only the shortest ones."""
    with imports_compare(ALL_TEXTS):
        yield


@pytest.fixture
def quiet_threads():
    """PyTorch computes on one thread: more are slower for tiny models."""
    with one_thread():
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
