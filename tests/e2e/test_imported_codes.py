"""A served MarianMT model of several target languages: by ``target_language`` or codes in texts."""

from operator import methodcaller

import grpc
import pytest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import TRUNCATION_LEFT
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_export.bundle.importing import ImportOptions, import_bundle, sample_texts
from attendant_export.bundle.manifest import read_manifest

from tests.support.altered import with_manifest
from tests.support.bundles import one_thread
from tests.support.marian_checkpoints import tiny_vocabulary, write_marian
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

TEXTS = ["The train is late.", "She is here", "\U0001f633\U0001f633 a", "No.", "a e i o u"]
CODES = {"fr": ">>fra<<", "de": ">>deu<<"}
VOCABULARY = tiny_vocabulary()
FRENCH = {"tag": "fr", "source_prefix_ids": [VOCABULARY[">>fra<<"]]}
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "marian"
    return write_marian(folder, codes=True, varies=True)


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


def request(texts, target="", **fields):
    beam_size = fields.pop("beam_size", 1)
    chosen = TranslateOptions(return_tokens=True, max_output_tokens=MAX_TOKENS, beam_size=beam_size)
    return TranslateRequest(texts=texts, options=chosen, target_language=target, **fields)


def translate(server, *args, **fields):
    return server.translation.Translate(request(*args, **fields)).translations


def with_code(code, texts=TEXTS):
    return [f"{code} {text}" for text in texts]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_the_target_language_and_a_code_in_the_text_are_equal(server, beam_size):
    found = {}
    for tag, code in CODES.items():
        found[tag] = translate(server, TEXTS, tag, beam_size=beam_size)
        assert found[tag] == translate(server, with_code(code), beam_size=beam_size)
        assert found[tag] == translate(server, with_code(code), tag, beam_size=beam_size)
    assert found["fr"] != found["de"]
    mixed = [f">>fra<< {TEXTS[0]}", f">>deu<< {TEXTS[0]}"]
    expected = [found["fr"][0], found["de"][0]]
    assert list(translate(server, mixed, beam_size=beam_size)) == expected


def test_scores_and_streams_follow_the_same_rule(server):
    plain, coded = (
        [TranslationPair(source=text, target="Le") for text in texts]
        for texts in (TEXTS, with_code(">>fra<<"))
    )
    by_tag = server.translation.Score(
        ScoreRequest(return_tokens=True, pairs=plain, target_language="fr")
    )
    assert (
        by_tag.scores
        == server.translation.Score(ScoreRequest(return_tokens=True, pairs=coded)).scores
    )
    streams = [
        "".join(piece.delta for piece in server.translation.StreamTranslate(each))
        for each in (
            StreamTranslateRequest(text=TEXTS[0], target_language="fr-CA"),
            StreamTranslateRequest(text=f">>fra<< {TEXTS[0]}"),
        )
    ]
    assert streams[0] == streams[1]


def test_a_text_without_a_language_is_refused_and_the_others_are_translated(server):
    refused, translated = translate(server, [TEXTS[0], f">>deu<< {TEXTS[0]}"])
    message = "must begin with the code of a language, such as >>fra<<, unless target_language"
    assert message in refused.error.message
    assert translated == translate(server, TEXTS, "de")[0]


def test_a_text_with_the_code_of_another_language_is_refused(server):
    (refused,) = translate(server, [f">>deu<< {TEXTS[0]}"], "fr")
    message = "texts[0]: begins with >>deu<<, but the target language has the code >>fra<<"
    assert message in refused.error.message


@pytest.fixture(scope="module")
def narrow(bundle, loop, settings, tmp_path_factory):
    """A server with two bundles of the same model, for French only and for codes in texts."""
    root = tmp_path_factory.mktemp("narrow")
    for name, language in (("french", FRENCH), ("codes", {"tag": "und"})):
        changed = {"name": name, "target_languages": [language]}
        with_manifest(bundle, root / "marian", methodcaller("update", changed))
        (root / "marian" / bundle.parent.name).rename(root / name)
    with running_server(loop, settings(bundles=root)) as running:
        yield running


def test_the_code_of_a_language_that_a_bundle_leaves_out_is_refused(narrow, server):
    found = translate(narrow, [TEXTS[0], f">>deu<< {TEXTS[0]}"], model="french")
    assert found[0] == translate(server, TEXTS[:1], "fr")[0]
    message = "texts[1]: begins with >>deu<<, but the target language has the code >>fra<<"
    assert message in found[1].error.message


def test_codes_are_read_in_texts_of_a_bundle_for_an_undetermined_language(narrow, server):
    for code in CODES.values():
        found = translate(narrow, with_code(code), model="codes")
        assert found == translate(server, with_code(code))


@pytest.mark.parametrize("text", [">>deu<<", "", " "])
def test_a_code_alone_is_no_text_and_neither_is_nothing(server, text):
    (refused,) = translate(server, [text])
    assert "texts[0]: is empty" in refused.error.message


def test_truncation_at_the_beginning_drops_a_word_right_after_the_code(server):
    text = "a e i o u " * 40
    one, other = (
        translate(server, [f">>deu<<{first}{text}"], truncation=TRUNCATION_LEFT)[0]
        for first in ("", "o ")
    )
    assert one.hypotheses == other.hypotheses


def test_an_unknown_target_language_is_refused(server):
    with pytest.raises(grpc.RpcError, match="has fr, de, not 'nl'"):
        translate(server, TEXTS, "nl", model="marian")
    described = server.models.GetModel(GetModelRequest()).model
    assert list(described.target_languages) == ["fr", "de"]


def test_truncation_at_the_beginning_keeps_the_code(server):
    text = "a e i o u " * 40
    found = [
        translate(server, [each], tag, truncation=TRUNCATION_LEFT)[0]
        for each, tag in ((text, "de"), (f">>deu<< {text}", ""))
    ]
    assert found[0] == found[1]
    assert found[0].truncation.num_kept_tokens == 60


FACE = VOCABULARY["\U0001f633"]


@pytest.fixture(scope="module")
def controlled(bundle, loop, settings, tmp_path_factory):
    """A server with a bundle that has a control, and with one of languages of the same tokens."""
    root = tmp_path_factory.mktemp("controlled")
    values = [{"name": "on", "source_prefix_ids": [FACE]}]
    languages = [
        {"tag": tag, "source_prefix_ids": [VOCABULARY[code], FACE]} for tag, code in CODES.items()
    ]
    for name, changed in (
        ("control", {"controls": [{"name": "faces", "values": values}]}),
        ("languages", {"target_languages": languages}),
    ):
        with_manifest(bundle, root / "marian", methodcaller("update", changed | {"name": name}))
        (root / "marian" / bundle.parent.name).rename(root / name)
    with running_server(loop, settings(bundles=root)) as running:
        yield running


@pytest.mark.parametrize("text", [*TEXTS, "a e i o u " * 40])
def test_tokens_of_controls_come_after_the_code_of_a_text_that_has_one(controlled, text):
    for tag, code in CODES.items():
        expected = translate(controlled, [text], tag, model="languages", truncation=TRUNCATION_LEFT)
        for each, target in ((text, tag), (f"{code} {text}", ""), (f"{code} {text}", tag)):
            options = {"controls": {"faces": "on"}, "truncation": TRUNCATION_LEFT}
            found = translate(controlled, [each], target, model="control", **options)
            assert found == expected


def test_translations_are_those_of_transformers(server, checkpoint, bundle):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")
    import torch

    parity = read_manifest(bundle).parity.original
    assert parity.num_different_token_ids == 0
    for entry in parity.translations[0].tokens:
        assert entry.num_identical + entry.num_ties == entry.num_sentences == parity.num_texts
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    model.generation_config.forced_eos_token_id = None
    texts = sample_texts()[:12]
    for tag, code in CODES.items():
        encoded = tokenizer(with_code(code, texts), return_tensors="pt", padding=True)
        for beam_size in (1, 4):
            with torch.inference_mode():
                expected = model.generate(
                    **encoded, num_beams=beam_size, max_new_tokens=MAX_TOKENS, max_length=None
                )
            found = translate(server, texts, tag, beam_size=beam_size)
            ours = [[token.id for token in each.hypotheses[0].tokens] for each in found]
            assert ours == [_until_end(ids[1:]) for ids in expected.tolist()]


def _until_end(ids):
    return ids[: ids.index(0) + 1] if 0 in ids else ids
