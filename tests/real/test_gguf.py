"""A trained language model in a GGUF file continues texts as it is known to, also by its graphs."""

from pathlib import Path

import pytest
from attendant_export.bundle.gguf_original import gguf_original
from attendant_export.graphs.writer import write_language_model_graphs
from attendant_export.importers.families import read_model
from attendant_export.importers.language_model import ImportedLanguageModel
from attendant_export.importers.sources import open_checkpoint
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.language_model_graphs import LanguageModelGraphs
from attendant_export.verify.reference_search import greedy, score

from tests.real.downloads import SMOLLM2
from tests.support.language_models import language_model_manifest

pytestmark = pytest.mark.real

PROMPT, CONTINUATION = "The capital of France is", " Paris."
TEXT = "The capital of France is Paris, and the capital of Italy is Rome."


@pytest.fixture(scope="module")
def path() -> Path:
    return SMOLLM2.fetch() / SMOLLM2.weights


@pytest.fixture(scope="module")
def imported(path) -> ImportedLanguageModel:
    found = read_model(open_checkpoint(str(path)))
    assert isinstance(found, ImportedLanguageModel)
    return found


def test_the_file_states_what_the_model_is(path, imported):
    assert open_checkpoint(str(path)).statements.license == "apache-2.0"
    assert (imported.max_tokens, imported.model.tokens.bos_id) == (8192, None)


def test_the_model_continues_the_prompt(imported):
    [found] = greedy(imported.model, [imported.tokenizer.encode(PROMPT).ids], 2)
    assert imported.tokenizer.decode(list(found.token_ids)) == CONTINUATION


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_its_graphs_continue_the_prompt(precision, imported, tmp_path):
    written = write_language_model_graphs(
        imported.model, precision, tmp_path, 64, texts=[imported.tokenizer.encode(TEXT).ids]
    )
    graphs = LanguageModelGraphs(tmp_path, written, language_model_manifest(imported.model))
    prompt = imported.tokenizer.encode(PROMPT).ids
    for beam_size in (1, 4):
        [trace] = search_all(graphs, [prompt], [2], beam_size=beam_size)
        ids = list(trace.hypotheses[0].token_ids)
        assert imported.tokenizer.decode(ids) == CONTINUATION


def test_its_log_probabilities_are_those_of_transformers(path, imported):
    pytest.importorskip("transformers")
    tokens = imported.model.tokens
    ids = imported.tokenizer.encode(TEXT).ids
    _, expected = gguf_original(path, tokens.eos_id, tokens.pad_id).run(ids[:1], ids[1:])
    [found] = score(imported.model, [ids[:1]], [ids[1:]])
    assert found == pytest.approx(expected, abs=1e-4)
