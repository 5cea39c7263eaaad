"""Attention graphs of imported models give the attention weights of the original."""

import numpy as np
import pytest
import torch
from attendant_export.graphs.writer import write_embedding_graphs, write_translation_graphs

from tests.support.checkpoints import write_checkpoint
from tests.support.graphs import open_session, run
from tests.support.imports import read_encoder, read_translator
from tests.support.marian_checkpoints import write_marian

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")

SOURCE, TARGET = [5, 9, 12, 7, 11, 0], [8, 6, 13, 0]


def compare(found, kind, expected):
    """``expected`` has the weights (1, heads, queries, keys) of each layer."""
    assert len(expected) == sum(name.startswith(kind) for name in found)
    for layer, weights in enumerate(expected):
        np.testing.assert_allclose(found[f"{kind}_{layer}"], weights.numpy(), atol=1e-5)


def test_marian_models_have_the_attention_of_the_original(tmp_path):
    source = write_marian(tmp_path / "marian", varies=True)
    theirs = transformers.MarianMTModel.from_pretrained(source, attn_implementation="eager").eval()
    ours = read_translator(source).model
    target_in = [ours.tokens.bos_id, *TARGET[:-1]]
    with torch.inference_mode():
        expected = theirs(
            input_ids=torch.tensor([SOURCE]),
            decoder_input_ids=torch.tensor([target_in]),
            output_attentions=True,
        )
    graph = write_translation_graphs(ours, "fp32", tmp_path).attention
    session = open_session(tmp_path, graph)
    found = run(session, source=np.array([SOURCE]), target_in=np.array([target_in]))
    compare(found, "encoder_attention", expected.encoder_attentions)
    compare(found, "decoder_attention", expected.decoder_attentions)
    compare(found, "cross_attention", expected.cross_attentions)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_encoders_have_the_attention_of_the_original(family, tmp_path):
    """That of ModernBERT is local in some layers, and its positions are rotary."""
    source = write_checkpoint(tmp_path / family, family)
    theirs = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    ids = np.arange(5, 60)[None]
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(ids), output_attentions=True).attentions
    graph = write_embedding_graphs(read_encoder(source).model, "fp32", tmp_path).attention
    compare(run(open_session(tmp_path, graph), token_ids=ids), "encoder_attention", expected)
