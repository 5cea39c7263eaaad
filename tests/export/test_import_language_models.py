"""Checkpoints of GPT-2, Llama, Mistral and Qwen2: networks, tokens, defaults and refusals."""

import logging

import pytest
import torch
import transformers
from attendant.v1.bundle_pb2 import MODEL_KIND_LANGUAGE_MODEL
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.families import read_model
from attendant_export.importers.language_model import ImportedLanguageModel
from attendant_export.models.special_tokens import LanguageModelTokens
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors

from tests.conftest import imports_compare_one_of
from tests.support.bundles import one_thread
from tests.support.checkpoints import change_json, write_json
from tests.support.imports import import_
from tests.support.language_checkpoints import BEGIN, CLASSES, END, write_language_model

pytestmark = pytest.mark.usefixtures("quiet_threads")

TEXT = "The capital of France is"


def read(folder, **fields) -> ImportedLanguageModel:
    """The model of a folder, with changed fields of its configuration."""
    change_json(folder / "config.json", **fields)
    imported = read_model(Checkpoint(folder))
    assert isinstance(imported, ImportedLanguageModel)
    return imported


@pytest.mark.parametrize("family", CLASSES)
def test_an_imported_model_gives_the_logits_of_the_original(family, tmp_path):
    source = write_language_model(tmp_path / family, family)
    imported = read(source)
    original = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    token_ids = torch.tensor([imported.tokenizer.encode(TEXT).ids])
    with torch.inference_mode():
        found = imported.model.logits(imported.model(token_ids))
        expected = original(token_ids).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bundle_is_verified_and_compared_with_the_original(family, tmp_path, capsys):
    source = write_language_model(tmp_path / family, family, has_start=family == "llama")
    with one_thread(), imports_compare_one_of(16):
        bundle = import_(source, tmp_path / "bundles")

    manifest = read_manifest(bundle)
    assert manifest.kind == MODEL_KIND_LANGUAGE_MODEL
    assert manifest.decoding.HasField("start_token_id") == (family == "llama")
    parity = manifest.parity.original
    assert (parity.num_texts, parity.num_different_token_ids) == (4, 0)
    [compared] = parity.translations
    assert compared.max_log_probability_difference < 1e-4
    assert all(entry.num_identical == 4 for entry in compared.tokens)
    main(["verify", str(bundle)])
    main(["verify", str(bundle), "--against", str(source)])
    main(["rebuild", str(bundle)])
    output = capsys.readouterr().out
    assert "fp32 beam4: 4 of 4 reference texts get the same tokens" in output
    assert "fp32 beam4 ragged: 0 of 4 outputs have other tokens, 0 more in ties" in output
    assert "the graphs are those of this version already" in output


def test_a_bundle_does_not_pass_for_another_checkpoint(tmp_path, capsys):
    source = write_language_model(tmp_path / "one", "llama")
    with one_thread(), imports_compare_one_of(16):
        bundle = import_(source, tmp_path / "bundles")
    weights = load_file(source / "model.safetensors")
    weights["model.norm.weight"] *= 1.1
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit):
        main(["verify", str(bundle), "--against", str(source)])
    assert "fp32 does not follow transformers" in capsys.readouterr().err


def test_the_token_before_a_text_becomes_the_start_token(tmp_path):
    plain = read(write_language_model(tmp_path / "plain", "llama"))
    started = read(write_language_model(tmp_path / "started", "llama", has_start=True))
    assert plain.model.tokens == LanguageModelTokens(pad_id=0, bos_id=None, eos_id=0)
    assert started.model.tokens == LanguageModelTokens(pad_id=0, bos_id=1, eos_id=0)
    assert started.tokenizer.encode(TEXT).ids == plain.tokenizer.encode(TEXT).ids
    assert started.tokenizer.encode("").ids == []


def test_a_tokenizer_that_ends_texts_is_refused(tmp_path):
    source = write_language_model(tmp_path / "m", "llama")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, 1), (END, 0)]
    )
    tokenizer.save(str(source / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="puts 1 special tokens before a text and 1 after it"):
        read(source)


def test_of_several_end_tokens_that_of_the_tokenizer_ends_texts(tmp_path, caplog):
    source = write_language_model(tmp_path / "m", "llama")
    change_json(source / "tokenizer_config.json", eos_token=BEGIN)
    change_json(source / "generation_config.json", eos_token_id=[0, 1])
    with caplog.at_level(logging.WARNING):
        assert read(source).model.tokens.eos_id == 1
    assert "eos_token_id is [0, 1], but a bundle has one end token, 1: 0 do not end" in caplog.text


def test_options_of_generation_become_defaults(tmp_path, caplog):
    source = write_language_model(tmp_path / "m", "llama")
    change_json(
        source / "generation_config.json",
        num_beams=3,
        length_penalty=0.5,
        early_stopping=True,
        repetition_penalty=1.25,
        no_repeat_ngram_size=3,
        min_new_tokens=2,
        suppress_tokens=[7, 5],
        do_sample=True,
        temperature=0.7,
    )
    with caplog.at_level(logging.WARNING):
        decoding = read(source).decoding
    assert (decoding.beam_size, decoding.length_penalty, decoding.early_stopping) == (3, 0.5, True)
    assert (decoding.repetition_penalty, decoding.no_repeat_ngram_size) == (1.25, 3)
    assert (decoding.min_output_tokens, list(decoding.suppressed_token_ids)) == (2, [5, 7])
    assert "do_sample is True, but sampling is no default of a bundle" in caplog.text
    assert "repetition_penalty applies to continuations alone" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_length": 5}, "min_length is 5, which is not supported for a language model"),
        ({"forced_bos_token_id": 5}, "forced_bos_token_id is 5, which is not supported"),
        ({"stop_strings": ["x"]}, "stop_strings is ['x'], which is not supported"),
    ],
)
def test_options_of_generation_that_a_bundle_cannot_have_are_refused(fields, message, tmp_path):
    source = write_language_model(tmp_path / "m", "llama")
    change_json(source / "generation_config.json", **fields)
    with pytest.raises(CheckpointError) as refused:
        read(source)
    assert message in str(refused.value)


def test_a_window_limits_the_tokens_of_a_text(tmp_path):
    mistral = write_language_model(tmp_path / "mistral", "mistral", sliding_window=40)
    assert read(mistral).max_tokens == 40
    assert read(mistral, sliding_window=None).max_tokens == 128
    qwen2 = write_language_model(tmp_path / "qwen2", "qwen2", sliding_window=40)
    assert read(qwen2).max_tokens == 128
    assert read(qwen2, use_sliding_window=True, sliding_window=40).max_tokens == 40


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling is {'rope_type'"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
            "rope_parameters.rope_type is 'llama3', which is not supported",
        ),
        ("llama", {"hidden_act": "mish"}, "hidden_act is 'mish', which is not supported"),
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of"),
        ("llama", {"head_dim": 24}, "head_dim: 24 is not supported in a decoder with rotary"),
        ("llama", {"vocab_size": 399}, "token id 399 exceeds the vocab_size 399"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", {"n_head": 32}, "head_dim: 1 is not supported in a decoder"),
        ("gpt2", {"n_layer": 3}, "the weights do not fit the configuration"),
    ],
)
def test_options_that_are_not_supported_are_refused(family, fields, message, tmp_path):
    source = write_language_model(tmp_path / "m", family)
    with pytest.raises(CheckpointError) as refused:
        read(source, **fields)
    assert message in str(refused.value)


def test_gpt2_may_have_its_tokenizer_in_two_files(tmp_path):
    source = write_language_model(tmp_path / "m", "gpt2")
    whole = Tokenizer.from_file(str(source / "tokenizer.json"))
    whole.model.save(str(source))
    (source / "tokenizer.json").unlink()
    assert read(source).tokenizer.encode(TEXT).ids == whole.encode(TEXT).ids


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path):
    source = write_language_model(tmp_path / "m", "llama")
    (source / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer: none of tokenizer.json, merges"):
        read(source)


def test_an_untied_head_is_its_own_matrix(tmp_path):
    source = write_language_model(tmp_path / "m", "llama", tie_word_embeddings=True)
    tied = read(source)
    assert tied.model.architecture.head.is_tied
    weights = load_file(source / "model.safetensors")
    head = {"lm_head.weight": torch.ones_like(weights["model.embed_tokens.weight"])}
    save_file(weights | head, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lm_head.weight differs from model.embed_tokens"):
        read(source)
    assert not read(source, tie_word_embeddings=False).model.architecture.head.is_tied


def test_glossaries_and_languages_of_translation_are_refused(tmp_path, refusal):
    source = write_language_model(tmp_path / "m", "llama")
    terms = tmp_path / "terms.tsv"
    terms.write_text("a\tb\n")
    assert "--glossary is for" in refusal(source, "--glossary", str(terms))
    assert "are for translation models" in refusal(source, "--source-languages", "en")


def test_the_pad_token_is_the_stated_one(tmp_path):
    source = write_language_model(tmp_path / "m", "llama")
    write_json(source / "special_tokens_map.json", {"pad_token": BEGIN})
    assert read(source).model.tokens.pad_id == 1
    assert read(source, pad_token_id=5).model.tokens.pad_id == 5
    assert read(source, pad_token_id=-1).model.tokens.pad_id == 1
