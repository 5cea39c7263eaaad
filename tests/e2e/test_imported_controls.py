"""Imported models that were trained with tags in their sources translate by controls."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import SPLITTING_NONE
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_export.bundle.controls import read_control
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.glossaries import GlossaryFile
from attendant_export.bundle.importing import ImportOptions, import_bundle, sample_texts
from attendant_export.bundle.manifest import read_manifest
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.drawn_translators import MAX_TOKENS, draw_checkpoint, until_end
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

TAGS = ("<2formal>", "<2informal>")
FORMALITY = (
    "formality:formal=<2formal>,informal=<2informal>,both=<2formal> <2informal>,plain="
    ";default=informal"
)
OPENING = "opening:see=<2formal>;place=target;description=Whether the opening is fixed."
LANGUAGES: dict[str, Any] = {"source_language": "en", "target_language": "de"}
TAGGED = {
    "formal": "<2formal> ",
    "informal": "<2informal> ",
    "both": "<2formal> <2informal> ",
    "plain": "",
}


def draw_tagged_checkpoint(folder, seed):
    """An NLLB to whose tokenizer tags were added, for which the network has rows already."""
    draw_checkpoint(folder, "nllb", seed)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.add_special_tokens(list(TAGS)) == len(TAGS)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return draw_tagged_checkpoint(tmp_path_factory.mktemp("tagged") / "source", 1)


@pytest.fixture(scope="module")
def bundle(source):
    controls = tuple(map(read_control, (FORMALITY, OPENING)))
    glossaries = (GlossaryFile("animals", b"cat\tKater\n"),)
    options = ImportOptions(max_tokens=60, controls=controls, glossaries=glossaries)
    with one_thread():
        return import_bundle(source, source.parent / "bundles", options)


@pytest.fixture(scope="module")
def server(bundle, loop, settings):
    with running_server(loop, settings(bundles=bundle.parent.parent)) as running:
        yield running


def translate(server, texts, beam_size=1, **controls):
    request = TranslateRequest(
        texts=texts,
        **LANGUAGES,
        controls=controls,
        splitting=SPLITTING_NONE,
        options=TranslateOptions(
            return_tokens=True, max_output_tokens=MAX_TOKENS, beam_size=beam_size
        ),
    )
    found = server.translation.Translate(request).translations
    return [[token.id for token in each.hypotheses[0].tokens] for each in found]


def originals(source, texts, beam_size=1, forced=()):
    """The tokens of translations from English to German by ``transformers``."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, src_lang="eng_Latn")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source).eval()
    model.generation_config.forced_eos_token_id = None
    german = tokenizer.convert_tokens_to_ids("deu_Latn")
    start = [model.config.decoder_start_token_id]
    # A search counts the length of a hypothesis from the end of its input.
    given = [*start, german, *forced] if forced else start
    with torch.inference_mode():
        found = model.generate(
            **tokenizer(texts, return_tensors="pt", padding=True),
            decoder_input_ids=torch.tensor([given] * len(texts)),
            forced_bos_token_id=None if forced else german,
            num_beams=beam_size,
            max_new_tokens=MAX_TOKENS + 1 - len(given),
            max_length=None,
        )
    return [until_end(ids[1:]) for ids in found.tolist()]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_by_controls_are_those_of_transformers_with_the_tags_in_texts(
    server, source, beam_size
):
    texts, differing = sample_texts()[:12], set()
    for value, tag in TAGGED.items():
        expected = originals(source, [tag + text for text in texts], beam_size)
        assert translate(server, texts, beam_size, formality=value) == expected
        differing.add(str(expected))
    assert len(differing) > 2


def test_calls_with_different_controls_at_the_same_time_get_their_own_translations(server, source):
    texts = sample_texts()[:12]
    alone = {value: translate(server, texts, formality=value) for value in TAGGED}
    with ThreadPoolExecutor(8) as pool:
        values = list(TAGGED) * 6
        found = list(pool.map(lambda value: translate(server, texts, formality=value), values))
    assert found == [alone[value] for value in values]


def test_a_control_at_the_beginning_of_targets_is_forced_in_translations_and_scores(
    server, source, bundle
):
    [see] = read_manifest(bundle).controls[1].values
    forced = list(see.forced_target_ids)
    texts = sample_texts()[:6]
    expected = originals(source, [f"<2informal> {text}" for text in texts], forced=forced)
    controls = {"opening": "see", "formality": "informal"}
    assert translate(server, texts, **controls) == expected
    pair = TranslationPair(source=texts[0], target="a")
    request = ScoreRequest(pairs=[pair], **LANGUAGES, controls=controls, return_tokens=True)
    [score] = server.translation.Score(request).scores
    assert [token.id for token in score.tokens][1 : 1 + len(forced)] == forced
    assert not any(score.log_probabilities[: 1 + len(forced)])
    assert score.log_probabilities[1 + len(forced)] < 0


def test_the_bundle_and_its_description_list_the_controls(server, bundle):
    card = (bundle / "MODEL_CARD.md").read_text()
    for text in (describe_manifest(read_manifest(bundle)), card):
        assert "formality: formal, informal, both, plain, default informal" in text
        assert "opening: see (Whether the opening is fixed.)" in text
    [formality, opening] = server.models.GetModel(GetModelRequest()).controls
    assert list(formality.values) == ["formal", "informal", "both", "plain"]
    assert formality.default_value == "informal"
    assert opening.description == "Whether the opening is fixed."


def test_an_import_may_add_glossaries(server, bundle):
    assert server.models.GetModel(GetModelRequest()).glossaries == ["animals"]
    assert (bundle / "glossaries/animals.tsv").read_bytes() == b"cat\tKater\n"


def test_a_call_without_controls_has_the_default_value(server):
    texts = sample_texts()[:12]
    found = translate(server, texts)
    assert found == translate(server, texts, formality="informal")
    assert found != translate(server, texts, formality="formal")


def test_a_token_that_the_vocabulary_lacks_is_refused_before_anything_is_written(source, tmp_path):
    control = read_control("formality:formal=<2polite>")
    problem = "--control formality: the vocabulary has no token <2polite>"
    with pytest.raises(ValueError, match=problem):
        import_bundle(source, tmp_path / "bundles", ImportOptions(controls=(control,)))
    assert not (tmp_path / "bundles").exists()
