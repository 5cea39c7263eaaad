"""A trained CTranslate2 model, imported and served, gives the translations that it is known for.

It transliterates Arabic names, is in the test data of CTranslate2, and has characters as tokens.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_server.settings import Settings

from tests.support.serving import LoopThread, running_server

pytestmark = pytest.mark.real

FOLDERS = "REAL_TRANSLITERATION_FOLDERS"
"""The environment variable that names a folder with one folder for each version of the model."""
EXPECTED = {"\u0622\u062a\u0632\u0645\u0648\u0646": "atzmon", "\u0622\u0632\u0627": "azza"}
NAME = "transliteration"


@pytest.fixture(scope="module", params=["v1-f32", "v1-i16", "v2-f32", "v2-i16", "v2-i8"])
def source(request) -> Path:
    if not (path := os.environ.get(FOLDERS)):
        pytest.skip(f"NOT CHECKED: {FOLDERS} names no folder")
    return Path(path) / request.param


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    """The bundle of fp32 and int8; importing compares it with the original, if installed."""
    bundles = tmp_path_factory.mktemp("bundles")
    options = ["--name", NAME, "--license", "MIT", "--tokenizer", "characters"]
    languages = ["--source-languages", "ar", "--target-languages", "en", "--max-tokens", "24"]
    arguments = [*options, *languages, "--precisions", "fp32,int8"]
    main(["import", str(source), "--bundles-dir", str(bundles), *arguments])
    return bundles / NAME / "1"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_served_translations_are_those_of_the_model(precision, beam_size, bundle):
    loop = LoopThread()
    address: dict[str, Any] = {"host": "127.0.0.1", "metrics_host": "127.0.0.1"}
    ports: dict[str, Any] = {"port": 0, "metrics_port": 0, "lame_duck_seconds": 0.0}
    settings = Settings(bundles=bundle.parents[1], precision=precision, **address, **ports)
    options = TranslateOptions(beam_size=beam_size)
    with running_server(loop, settings) as server:
        request = TranslateRequest(texts=list(EXPECTED), options=options)
        found = server.translation.Translate(request).translations
    loop.close()
    assert [each.hypotheses[0].text for each in found] == list(EXPECTED.values())


@pytest.mark.skipif(not find_spec("ctranslate2"), reason="NOT CHECKED: needs ctranslate2")
def test_the_comparison_with_the_original_is_in_the_manifest(bundle, source, capsys):
    parity = read_manifest(bundle).parity.original
    assert parity.implementation == "ctranslate2"
    assert parity.translations[0].max_log_probability_difference < 1e-4
    main(["verify", str(bundle), "--against", str(source)])
    assert "fp32 greedy single: 0 of " in capsys.readouterr().out
