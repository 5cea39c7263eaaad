"""Served models apply the repetition penalty of their checkpoints as ``transformers`` does."""

import json

import numpy as np
import pytest
import torch
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle, sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.rebuild import rebuild_bundle

from tests.support.bundles import one_thread
from tests.support.drawn_translators import MAX_TOKENS, draw_checkpoint, until_end
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

TEXTS = sample_texts()[:12]
BEAM_SIZES = (1, 4)


@pytest.fixture(scope="module", params=[("bart", 1.1), ("m2m_100", 1.3), ("mbart", 0.9)])
def imported(request, tmp_path_factory):
    """The checkpoint of a drawn model with a penalty, its bundle and the penalty."""
    pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")
    family, penalty = request.param
    folder = tmp_path_factory.mktemp("imported")
    source = draw_checkpoint(folder / "source", family, seed=3)
    path = source / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": penalty}))
    given = ("en",) if family == "bart" else None
    options = ImportOptions(max_tokens=60, source_languages=given, target_languages=given)
    with one_thread():
        return source, import_bundle(source, folder / "bundles", options), penalty


@pytest.fixture(scope="module")
def server(imported, loop, settings):
    with running_server(loop, settings(bundles=imported[1].parent.parent)) as running:
        yield running


def languages(bundle):
    """A source language and a target language of the bundle."""
    manifest = read_manifest(bundle)
    return manifest.source_languages[0], manifest.target_languages[-1]


def translate(server, bundle, texts, beam_size, **options):
    source, target = languages(bundle)
    request = TranslateRequest(
        texts=texts,
        source_language=source.tag,
        target_language=target.tag,
        options=TranslateOptions(
            return_tokens=True,
            max_output_tokens=MAX_TOKENS,
            beam_size=beam_size,
            num_hypotheses=beam_size,
            **options,
        ),
    )
    return server.translation.Translate(request).translations


class Original:
    """The model in ``transformers``, with the texts encoded in one batch."""

    def __init__(self, source, bundle):
        import transformers

        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source).eval()
        self.model.generation_config.forced_eos_token_id = None
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        language, target = languages(bundle)
        for token_id in (*language.source_prefix_ids, *language.source_suffix_ids):
            tokenizer.src_lang = tokenizer.convert_ids_to_tokens(token_id).strip("_")
        self.encoded = tokenizer(TEXTS, return_tensors="pt", padding=True)
        forced = (*target.forced_target_ids, *read_manifest(bundle).decoding.forced_token_ids)
        self.forced = forced[0] if forced else None

    @torch.inference_mode()
    def generate(self, beam_size, **options):
        """The tokens of the best translation of each text."""
        found = self.model.generate(
            **self.encoded,
            num_beams=beam_size,
            max_new_tokens=MAX_TOKENS,
            max_length=None,
            forced_bos_token_id=self.forced,
            **options,
        )
        return [until_end(ids[1:]) for ids in found.tolist()]

    @torch.inference_mode()
    def log_probabilities(self, text, tokens):
        """The log-probabilities that the model gives the tokens of a translation."""
        start = self.model.generation_config.decoder_start_token_id
        logits = self.model(
            **{name: rows[text : text + 1] for name, rows in self.encoded.items()},
            decoder_input_ids=torch.tensor([[start, *tokens[:-1]]]),
        ).logits[0]
        values = logits.log_softmax(-1).gather(1, torch.tensor([tokens]).T)[:, 0].tolist()
        return values if self.forced is None else [0.0, *values[1:]]


@pytest.fixture(scope="module")
def original(imported):
    source, bundle, _ = imported
    return Original(source, bundle)


def token_ids(hypothesis):
    return [token.id for token in hypothesis.tokens]


def test_the_penalty_is_described(server, imported):
    described = server.models.GetModel(GetModelRequest())
    assert described.repetition_penalty == imported[2]


def test_a_rebuild_writes_the_same_graphs(imported):
    assert rebuild_bundle(imported[1])[0].endswith("are those of this version already")


def test_the_import_compares_searches_with_the_penalty(imported):
    parity = read_manifest(imported[1]).parity.original
    for entry in parity.translations[0].tokens:
        assert entry.num_identical + entry.num_ties == entry.num_sentences == parity.num_texts
        assert entry.step == "decoder_step"


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_translations_are_those_of_transformers(beam_size, server, imported, original):
    found = translate(server, imported[1], TEXTS, beam_size)
    expected = original.generate(beam_size)
    assert [token_ids(each.hypotheses[0]) for each in found] == expected
    assert original.generate(beam_size, repetition_penalty=1.0) != expected


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
@pytest.mark.parametrize("penalty", [1.0, 1.6])
def test_a_request_can_choose_another_penalty(beam_size, penalty, server, imported, original):
    found = translate(server, imported[1], TEXTS, beam_size, repetition_penalty=penalty)
    expected = original.generate(beam_size, repetition_penalty=penalty)
    assert [token_ids(each.hypotheses[0]) for each in found] == expected


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_log_probabilities_and_scores_are_those_of_the_model(beam_size, server, imported, original):
    for text, translation in enumerate(translate(server, imported[1], TEXTS, beam_size)):
        for hypothesis in translation.hypotheses:
            values = [token.log_probability for token in hypothesis.tokens]
            expected = original.log_probabilities(text, token_ids(hypothesis))
            np.testing.assert_allclose(values, expected, atol=1e-3)
            penalty = original.model.generation_config.length_penalty
            power = 1.0 if penalty is None else penalty
            assert hypothesis.score == pytest.approx(sum(values) / len(values) ** power, 1e-4)


@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_a_text_alone_is_translated_as_in_a_batch(beam_size, server, imported):
    together = translate(server, imported[1], TEXTS, beam_size)
    for text, expected in zip(TEXTS, together, strict=True):
        [found] = translate(server, imported[1], [text], beam_size)
        assert [token_ids(each) for each in found.hypotheses] == [
            token_ids(each) for each in expected.hypotheses
        ]
