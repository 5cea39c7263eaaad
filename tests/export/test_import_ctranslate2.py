"""CTranslate2 folders become translation bundles through the real command."""

import json

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import (
    ACTIVATION_SILU,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.head_width import with_supported_heads
from attendant_export.models.embeddings import sinusoids
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.shapes import transformer
from attendant_export.verify import ctranslate2_original
from tokenizers import Tokenizer, processors

from tests.support.ctranslate2_folders import (
    EMBEDDINGS,
    HEADS,
    SOURCE_TOKENS,
    TARGET_TOKENS,
    WIDTH,
    early_names,
    model_bytes,
    quantized,
    random_weights,
    read_folder,
    write_folder,
)
from tests.support.marian_checkpoints import tiny_pieces, tiny_vocabulary
from tests.support.sentencepiece_files import write_sentencepiece

pytestmark = pytest.mark.usefixtures("quiet_threads")

ARGUMENTS = ("--license", "cc0-1.0", "--source-languages", "en", "--target-languages", "de")
PROJECTION = "decoder/projection/weight"
SHARED = ("</s>", "<unk>", *"abcdefgh")


def test_a_folder_becomes_a_bundle_that_verifies(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ctranslate2_original, "find_spec", lambda name: None)
    source, bundles = write_folder(tmp_path / "tiny"), tmp_path / "bundles"
    options = ("--tokenizer", "characters", "--max-tokens", "18", *ARGUMENTS)
    main(["import", str(source), "--bundles-dir", str(bundles), *options])
    folder = bundles / "tiny" / "1"
    manifest = read_manifest(folder)
    imported = manifest.provenance.imported_from
    assert (manifest.license, imported.family) == ("cc0-1.0", "ctranslate2")
    vocabularies = {f"{side}_vocabulary.txt" for side in ("source", "target")}
    assert {file.path for file in imported.files} == {"model.bin", "config.json"} | vocabularies
    assert (manifest.special_tokens.pad_id, manifest.special_tokens.eos_id) == (0, 2)
    assert manifest.special_tokens.unk_id == len(SOURCE_TOKENS)
    assert manifest.target_special_tokens.unk_id == len(TARGET_TOKENS)
    assert manifest.decoding.start_token_id == 1
    assert not manifest.parity.HasField("original")
    main(["verify", str(folder)])
    assert "fp32 beam4: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(folder), "--against", str(source)])
    assert "a comparison with the original needs ctranslate2" in capsys.readouterr().err


def test_options_of_the_network_are_read_folder(tmp_path):
    options = {
        "encoder/pre_norm": np.int8(0),
        "decoder/activation": np.int8(2),
        "encoder/scale_embeddings": np.float32(3),
        "decoder/scale_embeddings": np.int8(0),
        "decoder/scale_outputs": np.float32(0.5),
        "decoder/layer_0/attention/queries_scale": np.float32(0.25),
        "decoder/alignment_layer": np.int16(-1),
    }
    weights = random_weights(norms=["decoder/layer_norm", "encoder/layernorm_embedding"])
    weights["encoder/position_encodings/encodings"] = np.ones((40, WIDTH), np.float32)
    source = write_folder(tmp_path / "x", tensors=weights, options=options, layer_norm_epsilon=1e-3)
    network = read_folder(source).model.architecture
    encoder, decoder = network.encoder, network.decoder
    assert (encoder.norm_position, decoder.norm_position) == (NORM_POSITION_POST, NORM_POSITION_PRE)
    assert (encoder.has_final_norm, decoder.has_final_norm) == (False, True)
    assert encoder.norm_epsilon == decoder.norm_epsilon == 1e-3
    has_norm = [s.has_norm for s in (network.source_embeddings, network.target_embeddings)]
    assert has_norm == [True, False]
    assert (network.source_embeddings.scale, network.target_embeddings.scale) == (3, 0)
    positions = network.source_embeddings.positions
    assert (positions.kind, positions.num_positions) == (POSITION_KIND_LEARNED, 40)
    positions = network.target_embeddings.positions
    assert (positions.kind, positions.offset) == (POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR, 1)
    (group,) = encoder.groups
    assert (group.num_layers, group.self_attention.num_heads) == (2, HEADS)
    (group,) = decoder.groups
    assert group.feed_forward.activation == ACTIVATION_SILU
    assert group.cross_attention.scale == 0.25
    assert (network.head.is_tied, network.head.has_bias, network.head.scale) == (False, True, 0.5)


def test_positions_are_those_of_the_file_format(tmp_path):
    model = read_folder(write_folder(tmp_path / "x")).model
    part = model.architecture.source_embeddings.positions
    assert model.architecture.source_embeddings.scale == 4  # the root of the width, by default
    rates = [10000 ** (-i / (WIDTH / 2 - 1)) for i in range(WIDTH // 2)]
    angles = np.outer(np.arange(1, 51), rates)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(sinusoids(part, 50, WIDTH), expected, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("quantization", ["float32", "int16", "int8", "float16", "bfloat16"])
def test_weights_of_all_versions_are_dequantized(version, quantization, tmp_path):
    if version < 4 and quantization.endswith("float16"):
        pytest.skip("early versions have no such types")
    weights = random_weights()
    tensors = early_names(weights) if version == 1 else weights
    source = write_folder(tmp_path / "x", version, "float32", tensors)
    stored = quantized(weights, quantization)
    names = early_names(stored) if version == 1 else stored
    options = {} if version == 1 else {"num_heads": np.asarray(np.int8(HEADS))}
    if version >= 5:
        options = {f"{s}/num_heads": np.asarray(np.int8(HEADS)) for s in ("encoder", "decoder")}
    (source / "model.bin").write_bytes(model_bytes(names | options, version))
    loaded = read_folder(source).model.state_dict()["embedding.weight"]
    raw = stored["encoder/embeddings_0/weight"]
    if quantization in ("int8", "int16"):
        scale = stored["encoder/embeddings_0/weight_scale"].astype(np.float32).reshape(-1, 1)
        expected = raw.astype(np.float32) * (np.float32(1) / scale)
    elif quantization == "bfloat16":
        expected = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        expected = raw.astype(np.float32)
    assert np.array_equal(loaded.numpy(), expected)


def test_heads_of_early_models_are_those_of_the_specification(tmp_path):
    source = write_folder(tmp_path / "x")
    for specification, heads in (("TransformerBase", 8), ("TransformerBig", 16)):
        content = model_bytes(random_weights(), 2, {}, specification, revision=2)
        (source / "model.bin").write_bytes(content)
        group = read_folder(source).model.architecture.encoder.groups[0]
        assert group.self_attention.num_heads == heads


def test_aliases_share_weights(tmp_path):
    weights = random_weights(sizes=(len(SHARED) + 1,) * 2)
    del weights[PROJECTION], weights["encoder/embeddings_0/weight"]
    aliases = {PROJECTION: EMBEDDINGS, "encoder/embeddings_0/weight": EMBEDDINGS}
    shared = ("<s>", *SHARED)
    source = write_folder(tmp_path / "x", 6, "int8", weights, aliases, shared=shared)
    model = read_folder(source).model
    assert model.architecture.shares_embeddings
    assert model.architecture.head.is_tied
    # Without a padding token, one is added, which is never decoded.
    assert model.embedding.weight.shape[0] == len(shared) + 1
    assert model.tokens.pad_id == len(shared)
    assert model.state_dict()["head.bias"][-1] == -1e4
    assert model.embedding.weight[-1].abs().max() == 0


def test_a_decoder_that_starts_from_zeros_gets_a_token_for_it(tmp_path):
    options = {"decoder/start_from_zero_embedding": np.int8(1)}
    imported = read_folder(write_folder(tmp_path / "x", options=options))
    model, start = imported.model, imported.decoding.start_token_id
    assert start == len(TARGET_TOKENS) + 1
    assert model.state_dict()["target_embedding.weight"][start].abs().max() == 0
    assert model.logits(torch.zeros(1, WIDTH)).softmax(-1)[0, start] == 0
    # Marian's models read EOS after each text.
    assert imported.tokenizers.source.encode("ab").tokens == ["a", "b", "</s>"]


@torch.inference_mode()
def test_wider_heads_compute_the_same():
    torch.manual_seed(1)
    model = EncoderDecoder(transformer(20, 24, num_heads=4, num_decoder_layers=2)).eval()
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.3)
    source, target = torch.randint(3, 20, (3, 7)), torch.randint(3, 20, (3, 5))
    expected = model(source, target)
    wider = with_supported_heads(model)
    group = wider.architecture.decoder.groups[0]
    assert {group.self_attention.head_dim, group.cross_attention.head_dim} == {8}
    assert wider.architecture.encoder == model.architecture.encoder
    torch.testing.assert_close(wider(source, target), expected, rtol=1e-5, atol=1e-5)
    assert with_supported_heads(wider) is wider


def test_characters_are_tokens(tmp_path):
    folder = write_folder(tmp_path / "x", add_source_bos=True, add_source_eos=True)
    tokenizers = read_folder(folder).tokenizers
    encoded = tokenizers.source.encode("ab z")
    assert encoded.tokens == ["<s>", "a", "b", "<unk>", "<unk>", "</s>"]
    assert encoded.ids[3] == len(SOURCE_TOKENS)
    target = tokenizers.target.encode("AB")
    assert target.tokens == ["A", "B", "</s>"]
    assert tokenizers.target.decode(target.ids) == "AB"


def test_a_vocabulary_may_write_a_space_as_a_mark(tmp_path):
    shared = ("<s>", "</s>", "\u2581", "a", "b")
    weights = random_weights(sizes=(6, 6))
    tokenizers = read_folder(
        write_folder(tmp_path / "x", tensors=weights, shared=shared)
    ).tokenizers
    assert tokenizers.source.encode("a b").tokens == ["a", "\u2581", "b"]
    assert tokenizers.target.decode(tokenizers.target.encode("a b").ids) == "a b"


def test_tokens_may_be_separated_by_white_space(tmp_path):
    tokenizers = read_folder(write_folder(tmp_path / "x"), "whitespace").tokenizers
    assert tokenizers.source.encode(" a  p\n").tokens == ["a", "p"]
    assert tokenizers.target.decode(tokenizers.target.encode("A Z").ids) == "A Z"


def test_sentencepiece_models_of_the_folder_are_used(tmp_path):
    tokens = list(tiny_vocabulary())[:-1]
    folder = write_folder(
        tmp_path / "x",
        tensors=random_weights(sizes=(len(tokens),) * 2),
        shared=tokens,
        options={"decoder/start_from_zero_embedding": np.int8(1)},
        decoder_start_token="</s>",
    )
    for side in ("source", "target"):
        write_sentencepiece(folder / f"{side}.spm", tiny_pieces(side))
    imported = read_folder(folder, None)
    encoded = imported.tokenizers.source.encode(">>deu<< The train")
    assert encoded.ids[0] == tokens.index(">>deu<<")
    assert encoded.ids[-1] == tokens.index("</s>")
    languages = {each.tag: each for each in imported.tokenizers.target_languages}
    assert list(languages) == ["fr", "de"]
    assert list(languages["de"].source_prefix_ids) == [tokens.index(">>deu<<")]
    assert imported.tokenizers.source_tokens.pad_id == len(tokens)
    (folder / "target.spm").unlink()
    alone = read_folder(folder, "source.spm").tokenizers
    assert alone.target.encode("on").ids == alone.source.encode("on").ids


@pytest.mark.parametrize("begin", ["", "<s> "])
def test_codes_are_no_languages_if_a_tokenizer_json_puts_a_token_before_each_text(begin, tmp_path):
    tokens = [*SHARED[:2], "<s>", *SHARED[2:], ">>deu<<"]
    folder = write_folder(
        tmp_path / "x",
        tensors=random_weights(sizes=(len(tokens),) * 2),
        shared=tokens,
        decoder_start_token="</s>",
    )
    tokenizer = read_folder(folder).tokenizers.source
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A </s>", special_tokens=[("<s>", 2), ("</s>", 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    found = read_folder(folder, "tokenizer.json").tokenizers.target_languages
    assert [each.tag for each in found] == ([] if begin else ["de"])


def test_a_tokenizer_json_must_have_the_ids_of_the_vocabulary(tmp_path):
    folder = write_folder(
        tmp_path / "x",
        tensors=random_weights(sizes=(10, 10)),
        shared=SHARED,
        decoder_start_token="</s>",
    )
    tokenizer = read_folder(folder).tokenizers.source
    tokenizer.save(str(folder / "tokenizer.json"))
    content = json.loads(tokenizer.to_str()) | {"added_tokens": [], "post_processor": None}
    content["model"]["vocab"]["zz"] = content["model"]["vocab"].pop("<pad>")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="has the id 10, but the vocabulary of the model"):
        read_folder(folder, None)
    tokenizer.save(str(folder / "tokenizer.json"))
    found = read_folder(folder, "tokenizer.json").tokenizers
    assert found.source.encode("ab").ids == [2, 3]
    assert isinstance(found.target, Tokenizer)
