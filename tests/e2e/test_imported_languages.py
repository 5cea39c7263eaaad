"""Imported models of several languages behind a real server translate by language tags."""

import pytest
import torch
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_export.bundle.importing import ImportOptions, import_bundle, sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.verify.language_samples import with_languages
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.drawn_seeds import seeds
from tests.support.drawn_translators import MAX_TOKENS, draw_checkpoint, until_end
from tests.support.imports import read_translator
from tests.support.multilingual_checkpoints import PAD, write_multilingual
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

TEXTS = ["The train is late.", "She is here", "\U0001f633\U0001f633 a", "No.", "a e i o u"]
PAIRS = {
    "m2m_100": [("en", "de"), ("zh", "ar")],
    "nllb": [("en", "de"), ("zh-Hans", "zh-Hant")],
    "bart": [("en", "en")],
    "mbart": [("en", "ro"), ("zh", "ro")],
    "mbart50": [("en", "de"), ("zh", "pt")],
}


def serve(source, family, loop, settings):
    bundles = source.parent / "bundles"
    given = ("en",) if family == "bart" else None
    options = ImportOptions(max_tokens=60, source_languages=given, target_languages=given)
    with one_thread():
        folder = import_bundle(source, bundles, options)
    return folder, running_server(loop, settings(bundles=bundles))


def translate(server, texts, source, target, **options):
    request = TranslateRequest(
        texts=texts,
        source_language=source,
        target_language=target,
        options=TranslateOptions(return_tokens=True, max_output_tokens=MAX_TOKENS, **options),
    )
    return server.translation.Translate(request).translations


@torch.inference_mode()
def greedy(model, source, forced):
    """The greedy search of the PyTorch model after forced tokens."""
    _, _, memory, mask = model.start(torch.tensor([source]))
    ids = list(forced)
    while len(ids) < MAX_TOKENS and ids[-1:] != [model.tokens.eos_id]:
        hidden, _ = model.decode(torch.tensor([[model.tokens.bos_id, *ids]]), memory, mask)
        scores = model.logits(hidden[0, -1])
        scores[PAD] = -torch.inf
        ids.append(int(scores.argmax()))
    return ids


@pytest.mark.parametrize("family", list(PAIRS))
def test_tags_choose_the_tokens_around_a_text_and_those_that_a_target_begins_with(
    family, tmp_path, loop, settings
):
    source = write_multilingual(tmp_path / "source", family, forced_bos_token_id=None)
    folder, serving = serve(source, family, loop, settings)
    manifest, model = read_manifest(folder), read_translator(source).model
    tokenizer = Tokenizer.from_file(str(folder / manifest.source_tokenizer))
    tags = [
        {language.tag: language for language in side}
        for side in (manifest.source_languages, manifest.target_languages)
    ]
    with serving as server:
        for pair in PAIRS[family]:
            languages = [side[tag] for side, tag in zip(tags, pair, strict=True)]
            for text, found in zip(TEXTS, translate(server, TEXTS, *pair), strict=True):
                ids = with_languages(tokenizer.encode(text).ids, *languages)
                forced = languages[1].forced_target_ids
                tokens = [token.id for token in found.hypotheses[0].tokens]
                assert tokens == greedy(model, list(ids), forced)
                assert found.num_source_tokens == len(ids)
                # Tokens of languages are special, so that they are not in the text.
                special = tokenizer.decode(list(forced), skip_special_tokens=False)
                assert not special or special not in found.hypotheses[0].text
        described = server.models.GetModel(GetModelRequest())
        assert set(described.model.source_languages) == set(tags[0])
        request = ScoreRequest(
            return_tokens=True,
            pairs=[TranslationPair(source=TEXTS[0], target=TEXTS[1])],
            source_language=PAIRS[family][0][0],
            target_language=PAIRS[family][0][1],
        )
        [scored] = server.translation.Score(request).scores
        assert [token.id for token in scored.tokens][-1] == model.tokens.eos_id


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", list(PAIRS))
def test_translations_of_a_drawn_model_are_those_of_transformers(
    family, seed, tmp_path, loop, settings
):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")
    source = draw_checkpoint(tmp_path / "source", family, seed)
    # The import compares states, log-probabilities and searches with the original itself.
    folder, serving = serve(source, family, loop, settings)
    manifest = read_manifest(folder)
    parity = manifest.parity.original
    for entry in parity.translations[0].tokens:
        assert entry.num_identical + entry.num_ties == entry.num_sentences == parity.num_texts
    assert parity.num_different_token_ids <= 1  # transformers 5 has no character map for mBART

    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source).eval()
    model.generation_config.forced_eos_token_id = None
    texts = sample_texts()[:12]
    differing = 0
    with serving as server:
        for pair in PAIRS[family]:
            forced = _choose_languages(tokenizer, manifest, pair)
            encoded = tokenizer(texts, return_tensors="pt", padding=True)
            for beam_size in (1, 4):
                with torch.inference_mode():
                    expected = model.generate(
                        **encoded,
                        num_beams=beam_size,
                        max_new_tokens=MAX_TOKENS,
                        max_length=None,
                        forced_bos_token_id=forced,
                    )
                found = translate(server, texts, *pair, beam_size=beam_size)
                for theirs, ours in zip(expected.tolist(), found, strict=True):
                    tokens = [token.id for token in ours.hypotheses[0].tokens]
                    differing += tokens != until_end(theirs[1:])
    assert differing == 0


def _choose_languages(tokenizer, manifest, pair):
    """Choose the source language of the original; returns the forced token of the target."""
    [source] = [each for each in manifest.source_languages if each.tag == pair[0]]
    [target] = [each for each in manifest.target_languages if each.tag == pair[1]]
    for token_id in (*source.source_prefix_ids, *source.source_suffix_ids):
        tokenizer.src_lang = tokenizer.convert_ids_to_tokens(token_id).strip("_")
    forced = (*target.forced_target_ids, *manifest.decoding.forced_token_ids)
    return forced[0] if forced else None
