"""Static embeddings of Model2Vec and of sentence-transformers become bundles like all others."""

import random

import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import POOLING_MEAN
from attendant_export.__main__ import main
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.original import verify_against
from attendant_export.verify.original import OriginalError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from tests.support.checkpoints import change_json, write_checkpoint, write_json
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_encoder
from tests.support.static_checkpoints import (
    DIMENSION,
    TOKENIZERS,
    random_table,
    word_piece,
    words,
    write_model2vec,
    write_static_transformer,
)

pytestmark = pytest.mark.usefixtures("quiet_threads")

LAYOUTS = {
    "the folder of the module": "0_StaticEmbedding",
    "the root": "",
    "the root, as a dot": ".",
}


def drawn_tensors(seed: int, num_tokens: int) -> dict[str, torch.Tensor]:
    """A table of any width and type, with or without rows and weights of tokens."""
    draw = random.Random(seed)
    dimension = draw.choice((1, 7, 24, 65))
    num_rows = draw.choice((num_tokens, 40))
    table = random_table(num_rows, dimension, seed)
    dtype = draw.choice((torch.float16, torch.float32, torch.float64, torch.int8))
    tensors = {"embeddings": (table * 50 if dtype == torch.int8 else table).to(dtype)}
    generator = torch.Generator().manual_seed(seed)
    if num_rows != num_tokens:
        tensors["mapping"] = torch.randint(num_rows, (num_tokens,), generator=generator)
    if num_rows != num_tokens or draw.random() < 0.5:
        tensors["weights"] = torch.rand(num_tokens, generator=generator, dtype=torch.float64)
    return tensors


@pytest.mark.parametrize("seed", seeds(num_always=5))
def test_drawn_models_follow_model2vec(seed, tmp_path):
    pytest.importorskip("model2vec")
    tokenizer = list(TOKENIZERS.values())[seed % len(TOKENIZERS)]()
    tensors = drawn_tensors(seed, tokenizer.get_vocab_size())
    limit = (100, 512, None)[seed % 3]
    source = write_model2vec(
        tmp_path / "source", tokenizer, tensors, normalize=bool(seed % 2), max_length=limit
    )

    bundle = import_(source, tmp_path / "bundles", "--precisions", "fp32,int8,fp16")

    parity = read_manifest(bundle).parity.original
    assert parity.implementation == "model2vec"
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    cosines = {each.precision: each.embeddings.min_cosine for each in parity.vectors}
    assert cosines["fp32"] >= 0.99999
    assert cosines["fp16"] >= 0.9999
    assert cosines["int8"] >= 0.999
    assert verify_against(bundle, str(source))[0].startswith("model2vec")


@pytest.mark.parametrize("path", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_of_sentence_transformers_is_the_mean_of_all_tokens(path, tmp_path):
    source = write_static_transformer(tmp_path / "source", word_piece(), path, normalizes=True)

    manifest = read_manifest(import_(source, tmp_path / "bundles"))

    assert (manifest.embedding.pooling, manifest.embedding.normalize) == (POOLING_MEAN, True)
    assert manifest.limits.max_tokens == 65_536
    assert not manifest.architecture.text_vectors.HasField("excluded_token_id")
    assert manifest.provenance.imported_from.family == "static-embedding"
    imported = read_encoder(source)
    ids = imported.tokenizer.encode("The train 图书馆 leaves.").ids
    assert imported.tokenizer.token_to_id("[UNK]") in ids
    assert imported.tokenizer.token_to_id("[CLS]") not in ids
    expected = random_table(imported.tokenizer.get_vocab_size())[ids].mean(0)
    torch.testing.assert_close(imported.model.pooled(torch.tensor([ids]))[0], expected)


def test_dense_layers_follow_static_embeddings(tmp_path):
    source = write_static_transformer(tmp_path / "source", words(), dense=(7, 5))
    imported = read_encoder(source)
    ids = torch.tensor([[3, 4, 5]])
    expected = random_table(imported.tokenizer.get_vocab_size())[ids].mean(1)
    for width, d_output in ((DIMENSION, 7), (7, 5)):
        weight, bias = random_table(d_output, width), random_table(1, d_output)[0]
        expected = torch.tanh(expected @ weight.T + bias)
    torch.testing.assert_close(imported.model.pooled(ids), expected)


def test_a_bundle_says_that_its_network_has_no_layers(tmp_path):
    bundle = import_(write_model2vec(tmp_path / "source", words()), tmp_path / "bundles")
    manifest = read_manifest(bundle)
    assert manifest.special_tokens.unk_id == manifest.architecture.text_vectors.excluded_token_id
    assert not manifest.special_tokens.HasField("cls_id")
    described = describe_manifest(manifest)
    assert "encoder: empty" in described
    assert "text vectors: excluded_token_id 0" in described
    main(["verify", str(bundle)])


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [({}, 512), ({"max_length": 77}, 77), ({"max_length": None}, 65_536)],
)
def test_the_longest_text_is_that_of_the_configuration(fields, max_tokens, tmp_path):
    source = write_model2vec(tmp_path / "source", words(), **fields)
    assert read_encoder(source).max_tokens == max_tokens


def test_the_longest_text_is_that_of_the_truncation_of_sentence_transformers(tmp_path):
    tokenizer = words()
    tokenizer.enable_truncation(9)
    source = write_static_transformer(tmp_path / "source", tokenizer)
    assert read_encoder(source).max_tokens == 9
    assert read_manifest(import_(source, tmp_path / "bundles")).limits.max_tokens == 9


@pytest.mark.parametrize("has_modules", [False, True])
def test_a_configuration_may_lack_its_type(has_modules, tmp_path):
    source = write_model2vec(tmp_path / "source", words(), has_modules=has_modules)
    write_json(source / "config.json", {"tokenizer_name": "acme/tiny", "normalize": True})
    imported = read_encoder(source)
    assert (imported.family, imported.defaults.normalize) == ("model2vec", True)


def test_a_tokenizer_may_name_an_unknown_token_that_it_lacks(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="[UNK]"))
    imported = read_encoder(write_model2vec(tmp_path / "source", tokenizer))
    assert not imported.model.architecture.text_vectors.HasField("excluded_token_id")


def test_texts_without_known_tokens_have_zero_vectors_in_every_precision(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "No.": 1}, unk_token="[UNK]"))
    source = write_model2vec(tmp_path / "source", tokenizer)
    bundle = import_(source, tmp_path / "bundles", "--precisions", "fp32,int8,fp16")
    main(["verify", str(bundle)])
    model = read_encoder(source).model
    for pooling in model.poolings[:1] + model.poolings[2:]:
        assert not model.pooled(torch.tensor([[0, 0]]), pooling).any()


def test_without_the_original_package_a_model_is_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "attendant_export.verify.static_original.find_spec", lambda implementation: None
    )
    source = write_model2vec(tmp_path / "source", words())
    bundle = import_(source, tmp_path / "bundles")
    assert not read_manifest(bundle).parity.HasField("original")
    with pytest.raises(OriginalError, match="needs model2vec"):
        verify_against(bundle, str(source))


TABLE = random_table(200)
BROKEN = {
    "another tensor": (
        {"embeddings": TABLE, "head": TABLE.clone()},
        "the weights are embeddings, head; ",
    ),
    "no table": ({"weights": TABLE[:, 0].contiguous()}, "the weights weights lack embeddings"),
    "a flat table": ({"embeddings": TABLE[0].clone()}, "embeddings is (24,), want (tokens, dim"),
    "rows outside the table": (
        {"embeddings": TABLE, "mapping": torch.full((200,), 200)},
        "mapping (200,) has other numbers than those of rows",
    ),
    "a row between two rows": (
        {"embeddings": TABLE, "mapping": torch.full((200,), 0.5)},
        "mapping (200,) has other numbers than those of rows",
    ),
    "too few weights": (
        {"embeddings": TABLE, "weights": torch.ones(7)},
        "weights is (7,), not (200,)",
    ),
    "too few vectors": ({"embeddings": TABLE[:9].clone()}, "token id 199 exceeds the 9 vectors"),
}


@pytest.mark.parametrize(("tensors", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_tables_are_refused(tensors, message, tmp_path, refusal):
    source = write_model2vec(tmp_path / "source", words(), tensors, has_modules=False)
    assert message in refusal(source)


def test_a_tokenizer_that_cannot_read_a_text_is_refused(tmp_path, refusal):
    tokenizer = Tokenizer(models.WordLevel({"the": 0}, unk_token="[UNK]"))
    source = write_model2vec(tmp_path / "x", tokenizer, {"embeddings": random_table(1)})
    assert "the tokenizer cannot read the text 'The " in refusal(source)


def test_a_missing_tokenizer_is_named(tmp_path, refusal):
    source = write_static_transformer(tmp_path / "source", words())
    (source / "0_StaticEmbedding" / "tokenizer.json").unlink()
    assert "0_StaticEmbedding/tokenizer.json is missing" in refusal(source)


def test_bad_options_of_static_embeddings_are_refused(tmp_path, refusal):
    source = write_model2vec(tmp_path / "source", words(), max_length=0)
    assert "max_length is 0, want an integer from 1" in refusal(source)
    change_json(source / "config.json", max_length=9, normalize="yes")
    assert "normalize is 'yes', which is not supported" in refusal(source)
    change_json(source / "config.json", normalize=None)
    assert "--without-head is for embedding models" in refusal(source, "--without-head")


def test_the_embeddings_must_be_in_a_folder_of_the_checkpoint(tmp_path, refusal):
    source = write_static_transformer(tmp_path / "source", words())
    modules = [{"type": "sentence_transformers.models.StaticEmbedding", "path": "../elsewhere"}]
    write_json(source / "modules.json", modules)
    assert "the path of StaticEmbedding is '../elsewhere', want a folder's" in refusal(source)


def test_a_model_of_another_type_is_not_taken_for_static_embeddings(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert")
    save_file({"embeddings": TABLE}, source / "other.safetensors")
    assert read_encoder(source).family == "bert"


def test_static_embeddings_follow_sentence_transformers(tmp_path):
    pytest.importorskip("sentence_transformers")
    for number, make in enumerate(TOKENIZERS.values()):
        source = write_static_transformer(
            tmp_path / f"source{number}",
            make(),
            path=("", "0_StaticEmbedding")[number % 2],
            normalizes=number < 2,
            dense=(9,) * (number % 2),
        )
        parity = read_manifest(import_(source, tmp_path / "bundles")).parity.original
        assert parity.implementation == "sentence_transformers"
        assert parity.num_different_token_ids == 0
        assert np.float32(parity.vectors[0].embeddings.min_cosine) >= 0.99999
