"""Served models apply the search options of their checkpoints as ``transformers`` does."""

import json

import pytest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle, sample_texts
from attendant_export.bundle.manifest import read_manifest

from tests.support.bundles import one_thread
from tests.support.marian_checkpoints import write_generation, write_marian
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

NGRAM_SIZE, MIN_LENGTH, BEAM_SIZE, MAX_TOKENS = 2, 6, 4, 16
TEXTS = sample_texts()[:16]
TIE = 1e-5
"""Difference of log-probabilities that rounding may decide, which depends on the processor."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "opus-mt-en-fr"
    source = write_marian(folder, varies=True)
    return write_generation(
        source,
        num_beams=BEAM_SIZE,
        length_penalty=2.0,
        early_stopping=True,
        no_repeat_ngram_size=NGRAM_SIZE,
        min_length=MIN_LENGTH,
        **read_config(source),
    )


def read_config(source):
    """The options that a configuration of the search repeats."""
    config = json.loads((source / "config.json").read_text())
    names = ("bad_words_ids", "decoder_start_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names}


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory):
    with one_thread():
        return import_bundle(
            checkpoint, tmp_path_factory.mktemp("imported"), ImportOptions(max_tokens=60)
        )


@pytest.fixture(scope="module")
def server(bundle, loop, settings):
    with running_server(loop, settings(bundles=bundle.parent.parent)) as running:
        yield running


def test_the_options_are_described(server):
    described = server.models.GetModel(GetModelRequest(model="opus-mt-en-fr"))
    assert described.default_min_output_tokens == MIN_LENGTH - 1
    assert (described.early_stopping, described.no_repeat_ngram_size) == (True, NGRAM_SIZE)


def translate(server, beam_size=None, max_tokens=MAX_TOKENS, min_tokens=None):
    """The token ids of the best translation of each text."""
    options = TranslateOptions(
        return_tokens=True,
        max_output_tokens=max_tokens,
        beam_size=beam_size,
        min_output_tokens=min_tokens,
    )
    request = TranslateRequest(texts=TEXTS, options=options)
    found = server.translation.Translate(request).translations
    return [[token.id for token in each.hypotheses[0].tokens] for each in found]


@pytest.mark.parametrize("beam_size", [1, None])
def test_no_ngram_repeats_in_a_translation(server, beam_size):
    for ids in translate(server, beam_size):
        ngrams = list(zip(ids, ids[1:], strict=False))
        assert len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize("beam_size", [1, None])
def test_translations_have_the_minimum_length_unless_a_request_has_another(server, beam_size):
    # The minimum of transformers counts the start token, but not EOS.
    found = translate(server, beam_size)
    assert min(map(len, found)) >= MIN_LENGTH
    assert translate(server, beam_size, min_tokens=0) != found
    assert {len(ids) for ids in translate(server, beam_size, max_tokens=2)} == {2}


def test_translations_are_those_of_transformers(server, checkpoint, bundle):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")
    torch = pytest.importorskip("torch")
    # The import compares searches of all batchings with the original itself.
    parity = read_manifest(bundle).parity.original
    for entry in parity.translations[0].tokens:
        assert entry.num_identical + entry.num_ties == entry.num_sentences == parity.num_texts
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    encoded = tokenizer(TEXTS, return_tensors="pt", padding=True)

    def generate(beam_size, **options):
        with torch.inference_mode():
            found = model.generate(
                **encoded,
                num_beams=beam_size,
                max_new_tokens=MAX_TOKENS,
                max_length=None,
                **options,
            )
        return [until_end(ids[1:]) for ids in found.tolist()]

    def is_tie(row, found, one):
        """Whether the first tokens that differ are equally likely for the original."""
        place = next(i for i, (a, b) in enumerate(zip(found, one, strict=False)) if a != b)
        inputs = {name: tensor[row : row + 1] for name, tensor in encoded.items()}
        read = torch.tensor([[model.config.decoder_start_token_id, *one[:place]]])
        with torch.inference_mode():
            logits = model(**inputs, decoder_input_ids=read).logits[0, place].log_softmax(-1)
        return abs(logits[found[place]] - logits[one[place]]).item() < TIE

    for beam_size in (1, BEAM_SIZE):
        expected = generate(beam_size)
        for row, (found, one) in enumerate(
            zip(translate(server, beam_size), expected, strict=True)
        ):
            assert found == one or (beam_size == 1 and is_tie(row, found, one))
        assert generate(beam_size, no_repeat_ngram_size=0) != expected
        assert generate(beam_size, min_length=0) != expected
    assert generate(BEAM_SIZE, early_stopping=False) != expected


def until_end(ids):
    return ids[: ids.index(0) + 1] if 0 in ids else ids
