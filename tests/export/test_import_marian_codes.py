"""Codes such as ``>>fra<<`` in the vocabulary of a MarianMT checkpoint are its target languages."""

import pytest
from attendant.v1.bundle_pb2 import Language
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.languages import language_tags, single_languages

from tests.support.bundles import one_thread
from tests.support.checkpoints import change_json
from tests.support.imports import import_, read_translator
from tests.support.marian_checkpoints import tiny_vocabulary, write_marian

pytestmark = pytest.mark.usefixtures("very_few_texts")

VOCABULARY = tiny_vocabulary()
PREFIXES = {"fr": [VOCABULARY[">>fra<<"]], "de": [VOCABULARY[">>deu<<"]]}


def prefixes(languages):
    assert not any(each.source_suffix_ids or each.forced_target_ids for each in languages)
    return {each.tag: list(each.source_prefix_ids) for each in languages}


def test_a_code_is_the_token_before_a_source_for_its_language(tmp_path):
    imported = read_translator(write_marian(tmp_path / "source", codes=True))
    assert prefixes(imported.tokenizers.target_languages) == PREFIXES
    assert prefixes(imported.tokenizers.source_languages) == {"en": []}


def test_languages_of_the_tokenizer_have_standard_tags(tmp_path):
    source = write_marian(tmp_path / "source")
    change_json(source / "tokenizer_config.json", source_lang="eng", target_lang="deu")
    tokenizers = read_translator(source).tokenizers
    assert prefixes(tokenizers.source_languages) == {"en": []}
    assert prefixes(tokenizers.target_languages) == {"de": []}


def test_a_bundle_may_have_some_of_the_languages(tmp_path, capsys):
    source = write_marian(tmp_path / "source", codes=True)
    with one_thread():
        options = ("--target-languages", "de", "--max-tokens", "24")
        manifest = read_manifest(import_(source, tmp_path / "bundles", *options))
        assert prefixes(manifest.target_languages) == {"de": PREFIXES["de"]}
        with pytest.raises(SystemExit, match="2"):
            import_(source, tmp_path / "others", "--target-languages", "deu")
    assert "--target-languages: 'deu' is none of fr, de" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "tags"),
    [
        ("fr fr_CA pt pt_br pt_BR", "fr fr-CA pt pt_br pt-BR"),
        ("cmn cmn_Hans cmn_Hant zho zho_Hans", "cmn cmn-Hans zh-Hant zh zh-Hans"),
        ("pt_BR", "pt"),
        ("fra fr", "fra fr"),
        ("ROMANCE >x", "ROMANCE >x"),
        ("por pob", "pt pt-BR"),
    ],
)
def test_tags_distinguish_all_codes(codes, tags):
    found = language_tags(codes.split())
    assert found == dict(zip(codes.split(), tags.split(), strict=True))
    assert len({tag.lower() for tag in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("stated", "other", "card", "expected"),
    [
        (["de"], ["en"], ["fr", "en"], ["de"]),
        (["mul"], ["en"], ["ca", "es", "mul", "en"], ["ca", "es"]),
        (["zle"], ["be", "ru"], ["be", "ru", "zle"], ["be", "ru"]),
        (["ROMANCE"], ["en"], [], ["ROMANCE"]),
    ],
)
def test_the_card_names_the_languages_of_a_group(stated, other, card, expected, caplog):
    ours, others = ([Language(tag=tag) for tag in tags] for tags in (stated, other))
    found = single_languages("source", ours, others, card)
    assert [each.tag for each in found] == expected
    warned = "the source languages are the group 'ROMANCE', and the card does not list" in (
        caplog.text
    )
    assert warned == (expected == ["ROMANCE"])
