"""Imported T5 models behind a real server give the translations of their models."""

import pytest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.verify.reference_search import beam, greedy, score

from tests.support.bundles import one_thread
from tests.support.imports import read_translator
from tests.support.serving import running_server
from tests.support.t5_checkpoints import TASKS, write_t5

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

TEXTS = ["The train is late.", "No.", "She opened the window because it was warm.", "a \U0001f633"]
MAX_TOKENS = 24
PREFIXES = {"t5": TASKS["translation_en_to_de"]["prefix"], "madlad": "<2de> "}


@pytest.fixture(scope="module", params=PREFIXES)
def imported(request, tmp_path_factory):
    """The name of a checkpoint, its model, and the folder of its bundle."""
    name, folder = request.param, tmp_path_factory.mktemp("imported")
    tasks = TASKS if name == "t5" else None
    source = write_t5(folder / name, name == "madlad", task_specific_params=tasks)
    with one_thread():
        import_bundle(source, folder / "bundles", ImportOptions(max_tokens=60))
    return name, read_translator(source), folder / "bundles"


@pytest.fixture(scope="module")
def server(imported, loop, settings):
    with running_server(loop, settings(bundles=imported[2])) as running:
        yield running


def translate(server, texts, **options):
    request = TranslateRequest(
        texts=texts,
        target_language="de",
        options=TranslateOptions(return_tokens=True, max_output_tokens=MAX_TOKENS, **options),
    )
    return server.translation.Translate(request).translations


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_the_model_for_prefixed_texts(server, imported, beam_size):
    name, read, _ = imported
    model, tokenizer = read.model, read.tokenizers.source
    found = translate(server, TEXTS, beam_size=beam_size)
    for text, translation in zip(TEXTS, found, strict=True):
        ids = tokenizer.encode(PREFIXES[name] + text).ids
        assert translation.num_source_tokens == len(ids)
        if beam_size == 1:
            expected = greedy(model, [ids], MAX_TOKENS)[0]
        else:
            expected = beam(model, ids, beam_size, MAX_TOKENS).hypotheses[0]
        tokens = [token.id for token in translation.hypotheses[0].tokens]
        assert tokens == list(expected.token_ids)
        values = [token.log_probability for token in translation.hypotheses[0].tokens]
        assert values == pytest.approx(score(model, [ids], [tokens])[0], abs=1e-4)


def test_the_neighbours_of_a_text_and_a_stream_change_nothing(server):
    for text, translation in zip(TEXTS, translate(server, TEXTS), strict=True):
        assert translate(server, [text])[0].hypotheses[0].text == translation.hypotheses[0].text
        request = StreamTranslateRequest(
            text=text,
            target_language="de",
            options=TranslateOptions(return_tokens=True, max_output_tokens=MAX_TOKENS),
        )
        *_, last = server.translation.StreamTranslate(request)
        assert last.translation.hypotheses[0].text == translation.hypotheses[0].text


def test_scores_are_those_of_the_model(server, imported):
    name, read, _ = imported
    pair = TranslationPair(source=TEXTS[0], target="The train")
    request = ScoreRequest(return_tokens=True, pairs=[pair], target_language="de")
    (scored,) = server.translation.Score(request).scores
    tokenizer = read.tokenizers.source
    ids = tokenizer.encode(PREFIXES[name] + pair.source).ids
    (expected,) = score(read.model, [ids], [tokenizer.encode(pair.target).ids])
    assert list(scored.log_probabilities) == pytest.approx(expected, abs=1e-4)
