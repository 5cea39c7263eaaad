"""Trained students of translateLocally, imported and served, translate as Marian's models do."""

import os
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.text_pb2 import SPLITTING_NONE
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.marian_file import read_marian_file
from attendant_export.verify.language_samples import Sample
from attendant_export.verify.marian_original import MarianOriginal
from attendant_server.settings import Settings

from tests.real.downloads import ENGLISH_PORTUGUESE, PORTUGUESE_ENGLISH, RealModel
from tests.support.serving import LoopThread, Running, running_server

pytestmark = pytest.mark.real

FLORES = "REAL_FLORES"
"""The environment variable that names a folder with ``flores-test.en`` and ``flores-test.pt``."""
NUM_LINES, NUM_COMPARED, NUM_TEXTS = 300, 30, 30
EOS, UNKNOWN = 0, 1
NAME = "imported"
LANGUAGES = {ENGLISH_PORTUGUESE.name: ("en", "pt"), PORTUGUESE_ENGLISH.name: ("pt", "en")}
BLEU = {ENGLISH_PORTUGUESE.name: 46.0, PORTUGUESE_ENGLISH.name: 42.0}
"""Lower bounds, greedy, without shortlists, in both precisions."""


@pytest.fixture(
    scope="module", params=[ENGLISH_PORTUGUESE, PORTUGUESE_ENGLISH], ids=lambda model: model.name
)
def model(request) -> RealModel:
    chosen: RealModel = request.param
    return chosen


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory) -> Path:
    """The bundle of fp32 and int8. The import compares both with the plain reading."""
    bundles = tmp_path_factory.mktemp("bundles")
    options = ["--name", NAME, "--license", "none", "--precisions", "fp32,int8"]
    main(["import", str(model.fetch()), "--bundles-dir", str(bundles), *options])
    return bundles / NAME / "1"


@pytest.fixture(scope="module")
def lines(model) -> tuple[list[str], list[str]]:
    if not (folder := os.environ.get(FLORES)):
        pytest.skip(f"NOT CHECKED: {FLORES} names no folder of sentences")
    source, target = (
        Path(folder, f"flores-test.{language}").read_text(encoding="utf-8").splitlines()
        for language in LANGUAGES[model.name]
    )
    return source[:NUM_LINES], target[:NUM_LINES]


@pytest.fixture(scope="module", params=["fp32", "int8", "fp32 with shortlists"])
def server(request, bundle):
    precision, _, with_shortlists = request.param.partition(" ")
    address: dict[str, Any] = {"host": "127.0.0.1", "metrics_host": "127.0.0.1"}
    ports: dict[str, Any] = {"port": 0, "metrics_port": 0, "lame_duck_seconds": 0.0}
    settings = Settings(
        bundles=bundle.parents[1],
        precision=precision,
        shortlists="auto" if with_shortlists else "never",
        **address,
        **ports,
    )
    loop = LoopThread()
    with running_server(loop, settings) as running:
        yield request.param, running
    loop.close()


def translations(server: Running, texts: list[str]) -> list[Any]:
    """The best hypotheses of greedy search. Texts are not split, as in the reading."""
    found = []
    for first in range(0, len(texts), NUM_TEXTS):
        request = TranslateRequest(
            texts=texts[first : first + NUM_TEXTS],
            options=TranslateOptions(beam_size=1, return_tokens=True),
            splitting=SPLITTING_NONE,
        )
        found += server.translation.Translate(request).translations
    return [translation.hypotheses[0] for translation in found]


def test_the_comparison_with_the_reading_is_in_the_manifest(bundle):
    fp32, _ = read_manifest(bundle).parity.original.translations
    assert fp32.max_log_probability_difference <= 1e-4
    for entry in fp32.tokens:
        assert entry.num_identical + entry.num_ties == entry.num_sentences


def test_sentences_of_news_are_translated_as_well_as_by_marian(server, lines, model):
    _, running = server
    source, target = lines
    found = [hypothesis.text for hypothesis in translations(running, source)]
    bleu = sacrebleu.corpus_bleu(found, [target]).score
    print(f"{model.name} {server[0]}: {bleu:.2f} BLEU")
    assert bleu >= BLEU[model.name]


def test_served_tokens_are_those_of_the_reading(server, lines, model):
    name, running = server
    if name != "fp32":
        pytest.skip("the reading is exact for fp32 without shortlists")
    (vocabulary,) = model.fetch().glob("*.spm")
    file = read_marian_file(model.fetch() / model.weights)
    tensors = {each: file.array(each) for each in file.shapes}
    reading = MarianOriginal(tensors, file.config, vocabulary, EOS, [UNKNOWN])
    texts = lines[0][:NUM_COMPARED]
    found = [[token.id for token in each.tokens] for each in translations(running, texts)]
    tokenized = running.models.Tokenize(TokenizeRequest(texts=texts)).results
    for result, tokens in zip(tokenized, found, strict=True):
        ids = [token.id for token in result.tokens]
        assert list(reading.translate([Sample("", tuple(ids))], 1, 3 * len(ids) + 16)[0]) == tokens
