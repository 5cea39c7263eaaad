"""Encoders of T5, such as sentence-t5 and gtr-t5, become embedding models."""

import pytest
import torch
from attendant.v1.embedding_pb2 import POOLING_MEAN
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.t5_tokenizer import read_t5_tokenizers
from attendant_export.models.special_tokens import EncoderTokens
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import add_modules, change_json
from tests.support.imports import import_, read_encoder
from tests.support.t5_checkpoints import write_t5

pytestmark = pytest.mark.usefixtures("quiet_threads")

MEAN = {"pooling_mode_mean_tokens": True}
DENSE = {
    "out_features": 8,
    "bias": False,
    "activation_function": "torch.nn.modules.linear.Identity",
}
"""The layer of gtr-t5-base."""


def write_encoder(folder, has_decoder=False, **fields):
    """Write a checkpoint of T5, by default without its decoder, and with a tokenizer.json."""
    source = write_t5(folder, architectures=["T5EncoderModel"], **fields)
    tokenizer = read_t5_tokenizers(Checkpoint(source), 10**6).source
    tokenizer.save(str(source / "tokenizer.json"))
    path = source / "model.safetensors"
    if not has_decoder:
        tensors = load_file(path)
        save_file({k: v for k, v in tensors.items() if not k.startswith(("decoder", "lm"))}, path)
    return source


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_an_encoder_follows_the_original(feed_forward, tmp_path):
    pytest.importorskip("transformers")
    source = write_encoder(tmp_path / "source", feed_forward_proj=feed_forward)
    manifest = read_manifest(import_(source, tmp_path / "bundles"))
    parity = manifest.parity.original
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    assert manifest.provenance.imported_from.family == "t5"
    assert (manifest.embedding.pooling, manifest.embedding.normalize) == (POOLING_MEAN, False)


def test_the_decoder_of_a_sentence_transformer_is_left_out(tmp_path):
    sources = [write_encoder(tmp_path / str(has), has_decoder=has) for has in (False, True)]
    change_json(sources[1] / "config.json", architectures=["T5ForConditionalGeneration"])
    encoders = [read_encoder(add_modules(each, MEAN, True, 40, [DENSE])) for each in sources]
    states = [encoder.model.state_dict() for encoder in encoders]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [(each.max_tokens, each.defaults.normalize) for each in encoders] == [(40, True)] * 2
    assert encoders[0].model.tokens == EncoderTokens(pad_id=0, cls_id=None, sep_id=1, mask_id=None)


def test_vectors_are_those_of_sentence_transformers(tmp_path):
    package = pytest.importorskip("sentence_transformers")
    source = add_modules(write_encoder(tmp_path / "source"), MEAN, True, 40, [DENSE])
    change_json(source / "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    imported, text = read_encoder(source), "The train leaves at nine."
    ids = torch.tensor([imported.tokenizer.encode(text).ids])
    with torch.inference_mode():
        vector = torch.nn.functional.normalize(imported.model.pooled(ids), dim=-1)
    model = package.SentenceTransformer(str(source), device="cpu")
    expected = torch.from_numpy(model.encode([text]))
    torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-4)
