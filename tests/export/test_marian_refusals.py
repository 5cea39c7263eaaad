"""Models in Marian's formats that cannot be imported exactly are refused by field and value."""

import pytest
from attendant_export.__main__ import main
from attendant_export.importers.marian_file import read_marian_file

from tests.support.marian_files import (
    FIELDS,
    random_tensors,
    vocabulary,
    write_binary,
    write_marian_folder,
    write_npz,
    write_options,
    write_shortlist,
)

SIZE = len(vocabulary("source"))
WIDE = (SIZE // 64 + 1) * 64
"""Tokens of a bundle."""


@pytest.fixture
def refusal(tmp_path, capsys):
    """Imports a folder that must be refused and leave nothing behind; returns the message."""

    def refused(source, *options):
        bundles = tmp_path / "bundles"
        with pytest.raises(SystemExit, match="2"):
            main(["import", str(source), "--bundles-dir", str(bundles), "--license", "x", *options])
        assert not list(bundles.glob("*"))
        return capsys.readouterr().err

    return refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", "s2s", "type is 's2s', which is not supported; supported: 'transformer'"),
        ("dec_cell", "gru", "dec-cell is 'gru', which is not supported; supported: 'ssru'"),
        ("transformer_decoder_autoreg", "average-attention", "transformer-decoder-autoreg is"),
        ("transformer_ffn_activation", "gelu", "transformer-ffn-activation is 'gelu'"),
        ("transformer_ffn_depth", 3, "transformer-ffn-depth is 3"),
        ("transformer_train_position_embeddings", True, "position-embeddings is True"),
        ("transformer_no_projection", True, "transformer-no-projection is True"),
        ("transformer_rnn_projection", True, "transformer-rnn-projection is True"),
        ("transformer_postprocess", "dhn", "transformer-postprocess is 'dhn'"),
        ("transformer_postprocess_emb", "n", "transformer-postprocess-emb is 'n'"),
        ("transformer_preprocess", "n", "transformer-postprocess is 'dan'"),
        ("transformer_tied_layers", [1, 1], r"transformer-tied-layers is [1, 1]"),
        ("transformer_heads", 3, "dim-emb 32 is not an even multiple of transformer-heads 3"),
        ("transformer_heads", 8, "transformer-heads: Attention.head_dim: 4 is not supported"),
        ("right_left", True, "right-left is True"),
        ("layer_normalization", True, "layer-normalization is True"),
        ("output_omit_bias", True, "output-omit-bias is True"),
        ("lemma_dim_emb", 16, "lemma-dim-emb is 16"),
        ("input_types", ["class"], "input-types is ['class']"),
        ("ulr", True, "ulr is True"),
        ("some_new_field", 7, "some-new-field is 7, which is not supported"),
        ("dim_vocabs", [SIZE], f"dim-vocabs is [{SIZE}], want two numbers"),
        (
            "dim_vocabs",
            [SIZE, SIZE + 1],
            f"dim-vocabs is [{SIZE}, {SIZE + 1}], want equal numbers with tied-embeddings-all",
        ),
        ("dim_vocabs", [SIZE - 1] * 2, f"has {SIZE} pieces, but dim-vocabs in"),
    ],
)
def test_a_field_that_is_not_supported_is_named(field, value, message, tmp_path, refusal):
    source = write_marian_folder(tmp_path / "source")
    (path,) = source.glob("model.*")
    config = {**FIELDS, "dim-vocabs": [SIZE, SIZE], field.replace("_", "-"): value}
    tensors = random_tensors(read_marian_file(path).shapes)
    write_binary(path, config, {n: t for n, t in tensors.items() if "QuantMultA" not in n})
    refused = refusal(source)
    assert message in refused
    assert path.name in refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"word_penalty": 0.5}, "word-penalty is 0.5"),
        ({"normalize": -1}, "normalize is -1, want a number from 0 on"),
        ({"beam_size": 0}, "beam-size is 0, want an integer"),
        ({"models": ["a.bin", "b.bin"]}, "2 models with 2 vocabs, want one with 2"),
        ({"models": ["../model.bin"]}, "want names of files in the same folder"),
        ({"vocabs": ["vocab.yml"] * 2}, "vocabulary vocab.yml, supported: .spm files"),
        ({"shortlist": ["lex.gz", 50, 50]}, "lex.gz is missing"),
        ({"output_sampling": ["topk", 10]}, "output-sampling is ['topk', 10]"),
    ],
)
def test_an_option_that_is_not_supported_is_named(fields, message, tmp_path, refusal):
    source = write_options(write_marian_folder(tmp_path / "source"), **fields)
    assert message in refusal(source)


def test_a_tensor_too_few_or_too_many_is_named(tmp_path, refusal):
    source = write_marian_folder(tmp_path / "source", quantizes=False)
    (path,) = source.glob("model.*")
    file = read_marian_file(path)
    tensors = {name: file.array(name) for name in file.shapes}
    del tensors["decoder_l2_rnn_bf"]
    tensors |= {"decoder_l3_rnn_W": tensors["decoder_l2_rnn_W"], "Wemb": tensors["Wemb"][:, :16]}
    write_npz(path, file.config, tensors)
    refused = refusal(source)
    assert "decoder_l2_rnn_bf is missing" in refused
    assert "decoder_l3_rnn_W (32, 32) is not expected" in refused
    assert f"Wemb ({WIDE}, 16), not ({WIDE}, 32)" in refused.replace(" is (", " (")


def test_a_folder_with_unclear_files_is_refused(tmp_path, refusal):
    source = write_marian_folder(tmp_path / "source")
    (model,) = source.glob("model.*")
    (source / "model2.bin").write_bytes(model.read_bytes())
    assert "want one model, found model.enfr.intgemm.alphas.bin, model2.bin" in refusal(source)
    (source / "model2.bin").unlink()
    (source / "vocab.enfr.spm").rename(source / "vocab.enfr.model")
    assert "want one vocabulary (.spm), or srcvocab and trgvocab, found none" in refusal(source)


def test_a_shortlist_of_another_model_is_refused(tmp_path, refusal):
    source = write_marian_folder(tmp_path / "source")
    write_shortlist(source / "lex.50.50.enfr.s2t.bin", [[1], [2]])
    assert "its 2 source tokens or its target tokens up to 2 do not fit" in refusal(source)


def test_a_folder_that_tells_no_languages_is_refused(tmp_path, refusal):
    source = write_marian_folder(tmp_path / "source")
    (model,) = source.glob("model.*")
    model.rename(source / "model.bin")
    assert "give --source-languages and --target-languages" in refusal(source)
