"""A served model of OpenNMT-py gives the translations of its PyTorch model."""

import pytest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.opennmt_py import read_opennmt_py
from attendant_export.verify.reference_search import beam, greedy

from tests.support.imports import import_characters
from tests.support.opennmt_py_files import TARGET_TOKENS, write_checkpoint
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("quiet_threads")

TEXTS = ["abc", "a cab", "ponml", "zz", "d"]
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "x")


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory, loop, settings):
    bundles = tmp_path_factory.mktemp("imported")
    import_characters(checkpoint, bundles)
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_the_model(server, checkpoint, beam_size):
    model = read_opennmt_py(Checkpoint(checkpoint), "characters").model
    options = TranslateOptions(
        return_tokens=True, max_output_tokens=MAX_TOKENS, beam_size=beam_size
    )
    request = TranslateRequest(texts=TEXTS, options=options)
    tokenized = server.models.Tokenize(TokenizeRequest(texts=TEXTS)).results
    found = server.translation.Translate(request).translations
    for tokens, translation in zip(tokenized, found, strict=True):
        ids = [token.id for token in tokens.tokens]
        if beam_size == 1:
            expected = greedy(model, [ids], MAX_TOKENS)[0]
        else:
            expected = beam(model, ids, beam_size, MAX_TOKENS).hypotheses[0]
        best = translation.hypotheses[0]
        assert [token.id for token in best.tokens] == list(expected.token_ids)
        assert best.tokens[0].text == TARGET_TOKENS[expected.token_ids[0]]
