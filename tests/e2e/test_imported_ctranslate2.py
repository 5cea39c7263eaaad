"""A served CTranslate2 folder, whose tokens are characters, gives the translations of its model."""

import numpy as np
import pytest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_export.verify.reference_search import beam, greedy, score

from tests.support.ctranslate2_folders import (
    TARGET_TOKENS,
    read_folder,
    write_folder,
)
from tests.support.imports import import_characters
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("quiet_threads")

TEXTS = ["abc", "a cab", "ponml", "zz", "d"]
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Heads of width 4, which the kernel of decoder steps does not support as they are."""
    heads = {f"{stack}/num_heads": np.int16(4) for stack in ("encoder", "decoder")}
    return write_folder(tmp_path_factory.mktemp("folder") / "x", quantization="int8", options=heads)


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory, loop, settings):
    bundles = tmp_path_factory.mktemp("imported")
    import_characters(folder, bundles)
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


@pytest.fixture(scope="module")
def imported(folder):
    return read_folder(folder)


def source_ids(server, text):
    (result,) = server.models.Tokenize(TokenizeRequest(texts=[text])).results
    return [token.id for token in result.tokens]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_the_model(server, imported, beam_size):
    options = TranslateOptions(
        return_tokens=True, max_output_tokens=MAX_TOKENS, beam_size=beam_size
    )
    request = TranslateRequest(texts=TEXTS, options=options)
    found = server.translation.Translate(request).translations
    for text, translation in zip(TEXTS, found, strict=True):
        ids = source_ids(server, text)
        if beam_size == 1:
            expected = greedy(imported.model, [ids], MAX_TOKENS)[0]
        else:
            expected = beam(imported.model, ids, beam_size, MAX_TOKENS).hypotheses[0]
        best = translation.hypotheses[0]
        assert [token.id for token in best.tokens] == list(expected.token_ids)
        words = [TARGET_TOKENS[i] for i in expected.token_ids if 3 <= i < len(TARGET_TOKENS)]
        assert best.text.replace("<s>", "") == "".join(words)


def test_a_streamed_translation_is_the_whole_one(server):
    options = TranslateOptions(return_tokens=True, max_output_tokens=MAX_TOKENS)
    whole = server.translation.Translate(TranslateRequest(texts=["abc"], options=options))
    request = StreamTranslateRequest(text="abc", options=options)
    deltas = [piece.delta for piece in server.translation.StreamTranslate(request)]
    assert "".join(deltas) == whole.translations[0].hypotheses[0].text


def test_scores_are_those_of_the_model(server, imported):
    request = ScoreRequest(return_tokens=True, pairs=[TranslationPair(source="abc", target="DEF")])
    (scored,) = server.translation.Score(request).scores
    ids = [token.id for token in scored.tokens]
    assert ids == [*map(TARGET_TOKENS.index, "DEF"), TARGET_TOKENS.index("</s>")]
    (expected,) = score(imported.model, [source_ids(server, "abc")], [ids])
    assert list(scored.log_probabilities) == pytest.approx(expected, abs=1e-4)


def test_a_text_without_tokens_is_refused(server):
    (result,) = server.translation.Translate(TranslateRequest(texts=["", "a"])).translations[:1]
    assert "is empty" in result.error.message
