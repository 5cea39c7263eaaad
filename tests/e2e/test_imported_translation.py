"""Imported translation models behind a real server give the translations of their models."""

import pytest
import torch
from attendant.v1.model_pb2 import GetModelRequest, TokenizeRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.verify.reference_search import beam, greedy, score

from tests.support.bundles import one_thread
from tests.support.imports import read_translator
from tests.support.marian_checkpoints import tiny_pieces, tiny_vocabulary, write_marian
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

FACES = "\U0001f633\U0001f633 \U0001f633"
TEXTS = [f">>fra<< {t}" for t in ("The train is late.", "She is here", FACES, "No.", "a e i o u")]
VOCABULARY = tiny_vocabulary()
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "marian"
    return write_marian(folder, codes=True, varies=True, num_beams=3, length_penalty=0.5)


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory, loop, settings):
    bundles = tmp_path_factory.mktemp("imported")
    with one_thread():
        import_bundle(checkpoint, bundles, ImportOptions(max_tokens=60))
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


@pytest.fixture(scope="module")
def model(checkpoint):
    return read_translator(checkpoint).model


def translate(server, texts, **options):
    chosen = TranslateOptions(return_tokens=True, max_output_tokens=MAX_TOKENS, **options)
    return server.translation.Translate(TranslateRequest(texts=texts, options=chosen)).translations


def source_ids(server, text):
    (result,) = server.models.Tokenize(TokenizeRequest(texts=[text])).results
    return [token.id for token in result.tokens]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_the_model(server, model, beam_size):
    found = translate(server, TEXTS, beam_size=beam_size, length_penalty=1.0)
    for text, translation in zip(TEXTS, found, strict=True):
        ids = source_ids(server, text)
        expected = suppressed_search(model, ids, beam_size)
        tokens = [token.id for token in translation.hypotheses[0].tokens]
        assert tokens == list(expected.token_ids)
        values = [token.log_probability for token in translation.hypotheses[0].tokens]
        assert values == pytest.approx(score(model, [ids], [tokens])[0], abs=1e-4)


@torch.inference_mode()
def suppressed_search(model, ids, beam_size):
    """The search of the PyTorch model without padding in the output."""
    bias = model.head.bias
    saved = bias[-1].item()
    bias[-1] = -1e4  # its probability is small in this model, so the others hardly change
    try:
        if beam_size == 1:
            return greedy(model, [ids], MAX_TOKENS)[0]
        return beam(model, ids, beam_size, MAX_TOKENS).hypotheses[0]
    finally:
        bias[-1] = saved


def test_requests_without_options_get_the_beam_of_the_bundle(server):
    described = server.models.GetModel(GetModelRequest())
    assert (described.default_beam_size, described.default_length_penalty) == (3, 0.5)
    plain = translate(server, TEXTS)
    assert plain == translate(server, TEXTS, beam_size=3, length_penalty=0.5)
    assert plain != translate(server, TEXTS, beam_size=1)
    assert plain != translate(server, TEXTS, length_penalty=1.0)


def test_scores_are_those_of_the_model_and_use_the_length_penalty_of_the_bundle(server, model):
    source, target = TEXTS[0], "Le train"
    request = ScoreRequest(
        return_tokens=True, pairs=[TranslationPair(source=source, target=target)]
    )
    (scored,) = server.translation.Score(request).scores
    ids = [token.id for token in scored.tokens]
    (expected,) = score(model, [source_ids(server, source)], [ids])
    assert list(scored.log_probabilities) == pytest.approx(expected, abs=1e-4)
    assert scored.score == pytest.approx(sum(expected) / len(expected) ** 0.5, abs=1e-4)


def test_pieces_that_the_vocabulary_lacks_are_unknown(server):
    lacking = next(p for p in tiny_pieces("source").scores if p not in VOCABULARY and len(p) == 1)
    tokens = server.models.Tokenize(TokenizeRequest(texts=[lacking * 2])).results[0].tokens
    assert {token.id for token in tokens if token.text == lacking} <= {VOCABULARY["<unk>"]}
    assert max(token.id for token in tokens) < len(VOCABULARY)


def test_tokens_of_runs_of_unknown_characters_have_their_text_and_place(server):
    text = "on \U0001f633 \U0001f633\U0001f633"
    tokens = server.models.Tokenize(TokenizeRequest(texts=[text])).results[0].tokens
    runs = [t for t in tokens if "\U0001f633" in t.text]
    assert [t.text for t in runs] == ["\U0001f633", "\U0001f633\U0001f633"]
    assert [t.id for t in runs] == [VOCABULARY["\U0001f633"], VOCABULARY["<unk>"]]
    assert [(t.start, t.end) for t in runs] == [(3, 4), (5, 7)]


def test_a_language_code_at_the_beginning_is_a_token(server):
    text = ">>deu<< on >>fra<<"
    first, *rest = server.models.Tokenize(TokenizeRequest(texts=[text])).results[0].tokens
    assert (first.text, first.id) == (">>deu<<", VOCABULARY[">>deu<<"])
    assert (first.start, first.end) == (0, 7)
    assert VOCABULARY[">>fra<<"] not in [token.id for token in rest]


def test_special_tokens_in_a_text_are_plain_text(server):
    (result,) = server.models.Tokenize(TokenizeRequest(texts=["</s> <pad>"])).results
    ids = [token.id for token in result.tokens]
    assert ids.count(VOCABULARY["</s>"]) == 1
    assert VOCABULARY["<pad>"] not in ids
