"""The clients and the command load and unload models of a real server."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from attendant_client import AsyncClient, Client, NotFoundError, UnsupportedError
from attendant_client.__main__ import main

from tests.support.serving import Running
from tests.support.versions import add_version, damage


@pytest.fixture
def root(tmp_path: Path, translation_bundle: Path) -> Path:
    for version in "12":
        add_version(translation_bundle, tmp_path, version)
    return tmp_path


@pytest.fixture
def target(start: Callable[..., Running], root: Path) -> str:
    server = start(bundles=root, models=("tiny-en-de/1",), model_control="on")
    return f"127.0.0.1:{server.server.port}"


def test_both_clients_load_and_unload_versions(target: str):
    async def unload(model: str) -> str:
        async with AsyncClient(target) as client:
            return await client.unload_model(model)

    with Client(target) as client:
        loaded = client.load_model("tiny-en-de")
        assert (loaded.version, loaded.is_default) == ("2", True)
        assert asyncio.run(unload("tiny-en-de/1")) == "tiny-en-de/1"
        assert [model.version for model in client.models()] == ["2"]
        with pytest.raises(NotFoundError, match="no such model is served"):
            client.unload_model("tiny-en-de/1")


def test_a_bundle_that_cannot_be_loaded_is_an_error_with_its_reason(target: str, root: Path):
    damage(root / "tiny-en-de" / "2")
    with Client(target) as client, pytest.raises(UnsupportedError, match="its SHA-256 is not"):
        client.load_model("tiny-en-de/2")


def test_the_command_loads_and_unloads_models(
    target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ATTENDANT_TARGET", target)
    assert main(["load", "tiny-en-de/2"]) == 0
    assert main(["unload", "tiny-en-de/1"]) == 0
    assert capsys.readouterr().out == "tiny-en-de/2\ntiny-en-de/1\n"
    assert main(["load", "nothing"]) == 1
    assert "no such bundle" in capsys.readouterr().err
