"""The translations whose quality an export measures are those that a server gives."""

import pytest
from attendant.v1.text_pb2 import SPLITTING_NONE, TEXT_NORMALIZATION_NONE
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.bundle.manifest import read_manifest
from attendant_export.data import output_limits
from attendant_export.data.pair_tokenizer import PairTokenizer, load_tokenizers
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.quality import translate_by_graphs
from attendant_server.application import translation_options

from tests.support.application import TINY_BUNDLES

TEXTS = ["a", "go", "the dog", "Where is the station?", "I have a red car and a black cat."]


def test_the_limits_of_outputs_are_those_of_the_server():
    ours = output_limits.MAX_OUTPUT_RATIO, output_limits.EXTRA_OUTPUT_TOKENS
    theirs = translation_options.MAX_OUTPUT_RATIO, translation_options.EXTRA_OUTPUT_TOKENS
    assert ours == theirs


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_that_are_measured_are_those_that_are_served(start, beam_size):
    folder = TINY_BUNDLES / "tiny-en-de" / "1"
    manifest = read_manifest(folder)
    precision = manifest.precisions[0]
    tokenizer = PairTokenizer.of_run(*load_tokenizers(folder))
    graphs = TranslationGraphs(folder, precision, manifest)
    limit = manifest.limits.max_target_tokens
    measured = translate_by_graphs(graphs, tokenizer, TEXTS, limit, beam_size)

    request = TranslateRequest(
        texts=TEXTS,
        options=TranslateOptions(beam_size=beam_size, repetition_guard=False),
        splitting=SPLITTING_NONE,
        text_normalization=TEXT_NORMALIZATION_NONE,
    )
    server = start(bundles=TINY_BUNDLES, models=["tiny-en-de"], precision=precision.name)
    served = server.translation.Translate(request).translations
    assert measured == [each.hypotheses[0].text for each in served]
