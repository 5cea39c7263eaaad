"""CTranslate2 folders that are not supported or damaged are refused by name."""

import json
import struct

import numpy as np
import pytest
from attendant_export.__main__ import main
from attendant_export.importers.checkpoint import CheckpointError

from tests.support.ctranslate2_folders import (
    CONFIG,
    EMBEDDINGS,
    SOURCE_TOKENS,
    WIDTH,
    model_bytes,
    quantized,
    random_weights,
    read_folder,
    write_folder,
)

ARGUMENTS = ("--license", "cc0-1.0", "--source-languages", "en", "--target-languages", "de")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder/activation": np.int8(5)}, "decoder/activation is 5, which is not supported"),
        ({"encoder/pre_norm": np.int8(2)}, "encoder/pre_norm is 2, which is not supported"),
        ({"decoder/alibi": np.int8(1)}, "decoder/alibi is 1, which is not supported; supported: 0"),
        ({"encoder/num_heads": np.int16(3)}, "is not a multiple of encoder/num_heads 3"),
        ({"encoder/num_heads": np.int16(-3)}, "encoder/num_heads is -3, want a positive integer"),
        (
            {"encoder/layer_1/self_attention/num_heads_kv": np.int32(1)},
            "encoder/layer_1/self_attention/num_heads_kv is 1, which is not supported; supported:",
        ),
        (
            {"encoder/layer_0/self_attention/rotary_dim": np.int32(0)},
            "options that are not supported: encoder/layer_0/self_attention/rotary_dim 0",
        ),
        ({"decoder/final_logit_softcapping": np.float32(30)}, "final_logit_softcapping is 30"),
        ({"decoder/sliding_window": np.int32(64)}, "decoder/sliding_window is 64"),
    ],
)
def test_an_option_that_is_not_supported_is_named(options, message, tmp_path):
    source = write_folder(tmp_path / "x", options=options)
    with pytest.raises(CheckpointError, match=r"model\.bin") as raised:
        read_folder(source)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("encoder/layer_0/ffn/linear_0_noact/weight", (24, 16), "(ffn_glu) are not supported"),
        ("decoder/layer_0/self_attention/relative_position_keys", (5, 8), "with_relative_position"),
        ("encoder/layer_0/self_attention/relative_attention_bias", (2, 8), "relative_attention_b"),
        ("decoder/project_in/weight", (16, 8), "project_in_out"),
        ("decoder/layer_0/self_attention/q_norm/gamma", (8,), "qk_norm"),
        ("encoder/embeddings_1/weight", (8, 16), "num_source_embeddings"),
        ("encoder/extra/gamma", (16,), "has no beta: RMS norms (rms_norm) are not supported"),
        ("encoder/other/weight", (2, 2), "encoder/other/weight (2, 2) is not expected"),
        ("decoder/layer_0/attention/linear_1/weight", (16, 16), "is (16, 16), not (32, 16)"),
        ("decoder/layer_0/attention/linear_1/bias", (16,), "is (16,), not (32,)"),
        ("decoder/embeddings/weight", (7, 16), "has 7 rows, but the vocabulary has 30 tokens"),
    ],
)
def test_a_weight_that_is_not_supported_is_named(name, shape, message, tmp_path):
    tensors = random_weights() | {name: np.ones(shape, np.float32)}
    with pytest.raises(CheckpointError) as raised:
        read_folder(write_folder(tmp_path / "x", tensors=tensors))
    assert name in str(raised.value)
    assert message in str(raised.value)


def test_missing_weights_are_named(tmp_path):
    tensors = random_weights()
    del tensors["encoder/layer_1/self_attention/layer_norm/beta"]
    del tensors["decoder/layer_0/ffn/linear_1/bias"]
    with pytest.raises(CheckpointError, match=r"layer_norm/gamma has no beta"):
        read_folder(write_folder(tmp_path / "x", tensors=tensors))
    tensors["encoder/layer_1/self_attention/layer_norm/beta"] = np.ones(WIDTH, np.float32)
    with pytest.raises(CheckpointError, match=r"ffn/linear_1/bias is missing"):
        read_folder(write_folder(tmp_path / "y", tensors=tensors))


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("WhisperSpec", "WhisperSpec of speech, not a text model, which is not supported"),
        ("TransformerDecoderSpec", "is TransformerDecoderSpec, which is not supported; supported"),
    ],
)
def test_another_specification_is_refused(specification, message, tmp_path):
    source = write_folder(tmp_path / "x")
    content = model_bytes(random_weights(), specification=specification)
    (source / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_folder(source)


def damaged(change):
    content = bytearray(model_bytes(random_weights()))
    return bytes(change(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the version ends at byte 4, but the file has 0"),
        (struct.pack("<I", 7), "the version of the format is 7, which is not supported"),
        (damaged(lambda b: b[:5000]), "damaged or incomplete: .*weight ends at byte"),
        (damaged(lambda b: b + b"\0"), "1 bytes follow after the last variable"),
        (model_bytes(random_weights(), revision=8), "revision of the specification is 8"),
        (
            model_bytes(random_weights(), aliases={"a": "b"}),
            "a is an alias of b, which is not in the file",
        ),
        (
            model_bytes(random_weights() | {"encoder/num_heads": np.asarray(np.int16(2))}).replace(
                b"encoder/num_heads\0\0\2", b"encoder/num_heads\0\0\x09"
            ),
            "encoder/num_heads: the data type is 9, which is not supported; supported: 0 .float32.",
        ),
        (
            model_bytes(
                quantized(random_weights(), "int8")
                | {f"{EMBEDDINGS}_scale": np.ones(3).astype(np.float32)}
            ),
            r"decoder/embeddings/weight_scale is float32 \(3,\), but decoder/embeddings/weight is",
        ),
    ],
)
def test_a_damaged_file_is_refused(content, message, tmp_path):
    source = write_folder(tmp_path / "x")
    (source / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_folder(source)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder_start_token": None}, "decoder_start_token is null"),
        ({"decoder_start_token": "<x>"}, "the token <x> is in no vocabulary"),
        ({"decoder_start_token": 3}, "decoder_start_token is 3, want a token"),
        ({"eos_token": "<x>"}, "the end token <x> is missing"),
        ({"quantization_type": 1}, "quantization_type is 1, which is not supported"),
        ({"add_source_eos": "yes"}, "add_source_eos is 'yes', which is not supported"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon is -1, want a positive number"),
    ],
)
def test_a_field_that_is_not_supported_is_named(fields, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        read_folder(write_folder(tmp_path / "x", **fields))


def test_a_folder_without_a_tokenizer_needs_the_option(tmp_path, capsys):
    source, bundles = write_folder(tmp_path / "x"), tmp_path / "bundles"

    def refused(*options):
        with pytest.raises(SystemExit, match="2"):
            main(["import", str(source), "--bundles-dir", str(bundles), *options, *ARGUMENTS])
        assert not bundles.exists() or not list(bundles.iterdir())
        return capsys.readouterr().err

    assert "has no tokenizer of text: give --tokenizer with characters, whitespace" in refused()
    assert "--tokenizer letters is neither characters nor whitespace" in refused(
        "--tokenizer", "letters"
    )
    assert "--tokenizer ../a.spm is neither" in refused("--tokenizer", "../a.spm")
    for name in ("a.spm", "b.model"):
        (source / name).write_bytes(b"x")
    assert "has several: a.spm, b.model: give --tokenizer" in refused()
    assert "a.spm is not a SentencePiece model" in refused("--tokenizer", "a.spm")


def test_vocabularies_are_checked(tmp_path):
    source = write_folder(tmp_path / "x")
    path = source / "source_vocabulary.txt"
    path.write_text("\r\n".join(SOURCE_TOKENS) + "\r\n")
    assert read_folder(source).tokenizers.source.encode("a").ids == [3]
    path.write_text("\n".join([*SOURCE_TOKENS[:-1], "a"]) + "\n")
    with pytest.raises(CheckpointError, match="the token 'a' is given twice"):
        read_folder(source)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"source_vocabulary\.json is missing, and so is"):
        read_folder(source)
    (source / "source_vocabulary.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not a JSON list of tokens"):
        read_folder(source)


def test_the_option_is_for_these_folders_only(tmp_path, capsys):
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "bert"}))
    with pytest.raises(ValueError, match="--tokenizer is for models of CTranslate2"):
        read_folder(folder)
