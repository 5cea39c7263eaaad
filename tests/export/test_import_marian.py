"""MarianMT checkpoints become translation bundles through the real command."""

import json
import math

import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_POSITION_POST,
    POSITION_KIND_SINUSOIDAL_HALVED,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.models.embeddings import sinusoids
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.support.bundles import one_thread
from tests.support.checkpoints import change_json, write_json
from tests.support.imports import read_translator
from tests.support.marian_checkpoints import (
    SOURCE_LAYERS,
    TARGET_LAYERS,
    WIDTH,
    tiny_vocabulary,
    write_generation,
    write_marian,
)

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

PAD = len(tiny_vocabulary(codes=False)) - 1


def import_(source, bundles, *options):
    """The folder and the manifest of the imported bundle, by default compared on short texts."""
    options = options or ("--max-tokens", "30")
    main(["import", str(source), "--bundles-dir", str(bundles), *options])
    (folder,) = bundles.glob("*/*")
    return folder, read_manifest(folder)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    source = write_generation(
        write_marian(folder / "opus-mt-en-fr"),
        bad_words_ids=[[PAD]],
        num_beams=6,
        length_penalty=0.5,
        forced_eos_token_id=0,
        max_length=64,
    )
    with one_thread():
        return source, *import_(source, folder / "bundles", "--precisions", "fp32,int8")


def test_a_checkpoint_becomes_a_bundle_that_verifies(imported, capsys):
    _, folder, manifest = imported
    assert (manifest.name, manifest.license) == ("opus-mt-en-fr", "cc0-1.0")
    languages = manifest.source_languages, manifest.target_languages
    assert [[each.tag for each in side] for side in languages] == [["en"], ["fr"]]
    assert manifest.provenance.imported_from.family == "marian"
    files = {file.path for file in manifest.provenance.imported_from.files}
    assert {"config.json", "generation_config.json", "model.safetensors"} < files
    assert {"source.spm", "target.spm", "vocab.json", "tokenizer_config.json"} < files
    main(["verify", str(folder)])
    assert "int8 beam4: " in capsys.readouterr().out


def test_the_network_is_that_of_the_configuration(imported):
    network = imported[2].architecture
    assert network.d_model == WIDTH
    assert network.shares_embeddings
    for side in (network.source_embeddings, network.target_embeddings):
        assert side.scale == pytest.approx(math.sqrt(WIDTH))
        assert side.positions.kind == POSITION_KIND_SINUSOIDAL_HALVED
    for stack, layers, heads, d_feed_forward in (
        (network.encoder, SOURCE_LAYERS, 4, 48),
        (network.decoder, TARGET_LAYERS, 2, 40),
    ):
        (group,) = stack.groups
        assert (group.num_layers, group.self_attention.num_heads) == (layers, heads)
        assert group.feed_forward.d_feed_forward == d_feed_forward
        assert group.feed_forward.activation == ACTIVATION_SILU
        assert (stack.norm_position, stack.norm_epsilon) == (NORM_POSITION_POST, 1e-5)
    assert (network.head.is_tied, network.head.has_bias) == (True, True)


def test_search_options_become_defaults_of_the_bundle(imported):
    decoding, special = imported[2].decoding, imported[2].special_tokens
    assert (decoding.start_token_id, list(decoding.suppressed_token_ids)) == (PAD, [PAD])
    assert (decoding.beam_size, decoding.length_penalty) == (6, 0.5)
    assert not decoding.forces_eos_at_limit
    assert (special.pad_id, special.eos_id, special.unk_id) == (PAD, 0, 1)
    assert not imported[2].HasField("target_special_tokens")


def test_limits_are_those_of_the_positions_and_of_the_tokenizer(imported, tmp_path):
    limits = imported[2].limits
    assert (limits.max_source_tokens, limits.max_target_tokens) == (130, 130)
    source = write_marian(tmp_path / "source")
    change_json(source / "tokenizer_config.json", model_max_length=50)
    assert read_translator(source).max_tokens == 50


def test_both_sides_have_their_own_tokenizer_with_one_vocabulary(imported):
    _, folder, manifest = imported
    vocabulary = tiny_vocabulary(codes=False)
    sides = [
        Tokenizer.from_file(str(folder / path))
        for path in (manifest.source_tokenizer, manifest.target_tokenizer)
    ]
    encoded = [tokenizer.encode("The train is late.") for tokenizer in sides]
    assert encoded[0].tokens != encoded[1].tokens
    for encoding in encoded:
        known = dict(zip(encoding.tokens, encoding.ids, strict=True))
        assert {t: i for t, i in known.items() if i <= PAD}.items() <= vocabulary.items()


def test_options_in_the_configuration_itself_are_read(tmp_path):
    source = write_marian(tmp_path / "source", num_beams=4, suppress_tokens=[3])
    decoding = read_translator(source).decoding
    assert (decoding.beam_size, decoding.HasField("length_penalty")) == (4, False)
    assert list(decoding.suppressed_token_ids) == [3, PAD]


def test_renormalized_probabilities_leave_suppressed_tokens_out(tmp_path):
    source = write_marian(tmp_path / "source", renormalize_logits=True)
    imported = read_translator(source)
    assert not imported.decoding.suppressed_token_ids
    hidden = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    probabilities = imported.model.logits(hidden).softmax(-1)
    assert probabilities[:, PAD].max() == 0
    assert import_(source, tmp_path / "bundles")[1].architecture.head.has_bias


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (
            {"share_encoder_decoder_embeddings": False, "scale_embedding": False},
            {"embedding", "target_embedding"},
        ),
        ({"tie_word_embeddings": False}, {"embedding", "head.projection"}),
        (
            {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
            {"embedding", "target_embedding", "head.projection"},
        ),
    ],
)
def test_embeddings_and_head_may_have_their_own_weights(fields, names, tmp_path):
    source = write_marian(tmp_path / "source", activation_function="relu", **fields)
    model = read_translator(source).model
    tables = {name for name, tensor in model.state_dict().items() if PAD + 1 in tensor.shape}
    assert tables == {f"{name}.weight" for name in names} | {"head.bias"}
    _, manifest = import_(source, tmp_path / "bundles")
    network = manifest.architecture
    assert network.source_embeddings.scale == (0 if "scale_embedding" in fields else WIDTH**0.5)
    assert network.decoder.groups[0].feed_forward.activation == ACTIVATION_RELU


def test_untied_tables_that_are_stored_apart_are_read_apart(tmp_path):
    source = write_marian(tmp_path / "source", tie_word_embeddings=False)
    tensors = load_file(source / "model.safetensors")
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_tokens.weight"
        tensors[name] = torch.randn(*tensors["model.shared.weight"].shape)
    save_file(tensors, source / "model.safetensors")
    ours = read_translator(source).model.state_dict()
    for name, side in (("embedding", "encoder"), ("target_embedding", "decoder")):
        stored = tensors[f"model.{side}.embed_tokens.weight"]
        assert torch.equal(ours[f"{name}.weight"], stored)


def test_vocabularies_may_be_separate(tmp_path):
    source = write_marian(tmp_path / "source", share_encoder_decoder_embeddings=False)
    target = tiny_vocabulary(codes=False)
    write_json(source / "target_vocab.json", target)
    texts = list(target)
    write_json(
        source / "vocab.json", {t: i for i, t in enumerate(texts[1:6] + texts[:1] + texts[6:])}
    )
    change_json(source / "tokenizer_config.json", separate_vocabs=True)

    folder, manifest = import_(source, tmp_path / "bundles")

    assert (manifest.special_tokens.eos_id, manifest.special_tokens.unk_id) == (5, 0)
    own = manifest.target_special_tokens
    assert (own.pad_id, own.eos_id, own.unk_id) == (PAD, 0, 1)
    ends = [
        Tokenizer.from_file(str(folder / path)).encode("on").ids[-1]
        for path in (manifest.source_tokenizer, manifest.target_tokenizer)
    ]
    assert ends == [5, 0]


def test_tied_and_computed_weights_may_be_stored_again(tmp_path):
    source = write_marian(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    part = read_translator(source).model.architecture.source_embeddings.positions
    for side in ("encoder", "decoder"):
        tensors[f"model.{side}.embed_tokens.weight"] = tensors["model.shared.weight"].clone()
        tensors[f"model.{side}.embed_positions.weight"] = sinusoids(part, 130, WIDTH).half()
    tensors["lm_head.weight"] = tensors["model.shared.weight"].clone()
    (source / "model.safetensors").unlink()
    torch.save(tensors, source / "pytorch_model.bin")
    assert read_translator(source).max_tokens == 130


def test_language_codes_are_the_target_languages(tmp_path):
    source = write_marian(tmp_path / "source", codes=True)
    folder, manifest = import_(source, tmp_path / "bundles")
    assert [language.tag for language in manifest.target_languages] == ["fr", "de"]
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(">>deu<< on").ids
    assert ids[0] == tiny_vocabulary()[">>deu<<"]


@pytest.mark.parametrize(
    ("name", "options", "tags"),
    [
        ("opus-mt-de-en", (), ("de", "en")),
        ("opus-mt-tc-big-fr-en", (), ("fr", "en")),
        ("opus-mt-de-en", ("--target-languages", "nl,af"), ("de", "nl", "af")),
        ("x", ("--source-languages", "sv", "--target-languages", "da"), ("sv", "da")),
    ],
)
def test_languages_come_from_options_or_the_name(name, options, tags, tmp_path):
    source = write_marian(tmp_path / name)
    (source / "tokenizer_config.json").unlink()
    options = ("--max-tokens", "30", *options)
    _, manifest = import_(source, tmp_path / "bundles", *options)
    languages = [*manifest.source_languages, *manifest.target_languages]
    assert tuple(language.tag for language in languages) == tags


def test_the_languages_of_the_tokenizer_go_before_those_of_the_name(tmp_path):
    source = write_marian(tmp_path / "opus-mt-de-nl")
    _, manifest = import_(source, tmp_path / "bundles")
    assert manifest.source_languages[0].tag == "en"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("normalize_before", True, "normalize_before is True, which is not supported"),
        ("normalize_embedding", True, "normalize_embedding is True"),
        ("add_final_layer_norm", True, "add_final_layer_norm is True"),
        ("add_bias_logits", True, "add_bias_logits is True"),
        ("static_position_embeddings", False, "static_position_embeddings is False"),
        ("is_encoder_decoder", False, "is_encoder_decoder is False"),
        ("activation_function", "mish", "activation_function is 'mish'"),
        ("scale_embedding", 2, "scale_embedding is 2, which is not supported"),
        ("encoder_attention_heads", 5, "not a multiple of encoder_attention_heads 5"),
        ("decoder_attention_heads", 8, "decoder_attention_heads: Attention.head_dim: 4 is not sup"),
        ("vocab_size", 12, "the token ids are not 0 to 11, as the configuration states"),
        ("pad_token_id", 3, "pad_token_id is 3, which is not supported"),
        ("eos_token_id", 5, "eos_token_id is 5, which is not supported"),
        ("decoder_start_token_id", 4000, "token id 4000 is not in the "),
        ("bad_words_ids", [[1, 2]], "bad_words_ids has [1, 2]; supported: lists of one token"),
        ("bad_words_ids", [4], "bad_words_ids has 4"),
        ("suppress_tokens", [-1], "-1 is not the id of a token"),
        ("suppress_tokens", "x", "bad_words_ids or suppress_tokens is not a list"),
        ("num_beams", 0, "num_beams is 0, want an integer"),
        ("no_repeat_ngram_size", -1, "no_repeat_ngram_size is -1, want an integer"),
        ("encoder_no_repeat_ngram_size", 3, "encoder_no_repeat_ngram_size is 3, which is not sup"),
        ("repetition_penalty", 200, "repetition_penalty is 200, want a number from 0.01 to 100"),
        ("early_stopping", "never", "early_stopping is 'never'"),
        ("do_sample", True, "do_sample is True"),
        ("forced_bos_token_id", 4000, "token id 4000 is not in the "),
        ("forced_decoder_ids", [[1, 7]], "forced_decoder_ids is [[1, 7]], which is not supported"),
    ],
)
def test_a_field_that_is_not_supported_is_named(field, value, message, tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    change_json(source / "config.json", **{field: value})
    refused = refusal(source)
    assert message in refused
    assert ("vocab.json" if field == "vocab_size" else "config.json") in refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_lower_case": True}, "do_lower_case is True, which is not supported"),
        ({"sp_model_kwargs": {"alpha": 1}}, "sp_model_kwargs is {'alpha': 1}, want {}"),
        ({"separate_vocabs": True}, "target_vocab.json is missing"),
        ({"tokenizer_class": "Own"}, "tokenizer_class is 'Own', which is not supported; supported"),
        ({"unk_token": "[UNK]"}, "vocab.json: the special token [UNK] is missing"),
    ],
)
def test_an_option_of_the_tokenizer_is_named(change, message, tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    change_json(source / "tokenizer_config.json", **change)
    assert message in refusal(source)


@pytest.mark.parametrize("name", ["source.spm", "target.spm", "vocab.json", "model.safetensors"])
def test_a_missing_file_is_named(name, tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    (source / name).unlink()
    assert name in refusal(source)


def test_an_id_that_is_given_twice_is_refused(tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    vocabulary = json.loads((source / "vocab.json").read_text())
    write_json(source / "vocab.json", vocabulary | {"<unk>": 2})
    assert "vocab.json: the token ids are not 0 to" in refusal(source)


def test_positions_that_are_not_sinusoids_are_refused(tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.encoder.embed_positions.weight"] = torch.zeros(130, WIDTH)
    save_file(tensors, source / "model.safetensors")
    assert "embed_positions.weight has other values than sinusoids" in refusal(source)


def test_a_checkpoint_that_states_no_languages_is_refused(tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    (source / "tokenizer_config.json").unlink()
    assert "give --source-languages and --target-languages" in refusal(source)


def test_languages_of_an_embedding_model_are_refused(tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    assert "--languages is for embedding models" in refusal(source, "--languages", "en")
