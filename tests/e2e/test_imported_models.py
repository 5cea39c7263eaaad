"""Imported checkpoints behind a real server give the vectors and tokens of their models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attendant.v1 import embedding_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.families import read_model
from attendant_export.importers.special_tokens import read_tokenizer

from tests.support.bundles import one_thread
from tests.support.checkpoints import FAMILIES, write_checkpoint, write_sentence_transformer
from tests.support.serving import running_server

TEXTS = ["The train leaves at nine.", "Où est la gare ?", "图书馆每天早上八点开门。", "No."]
MASKS = dict.fromkeys(("albert", "bert", "distilbert", "electra", "modernbert"), "[MASK]")
POOLINGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
}


def st_name(pooling, normalizes):
    return f"st-{pooling}-{'normal' if normalizes else 'plain'}"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder of checkpoints: all families, and all poolings of sentence-transformers."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        write_checkpoint(root / family, family)
    for pooling, field in POOLINGS.items():
        for normalizes in (False, True):
            folder = root / st_name(pooling, normalizes)
            write_sentence_transformer(folder, {field: True}, normalizes)
    return root


@pytest.fixture(scope="module")
def server(checkpoints, tmp_path_factory, loop, settings):
    bundles: Path = tmp_path_factory.mktemp("imported")
    with one_thread():
        for checkpoint in sorted(checkpoints.iterdir()):
            import_bundle(checkpoint, bundles, ImportOptions())
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def as_array(tensor: Any) -> np.ndarray:
    assert tensor.dtype == embedding_pb2.DATA_TYPE_FLOAT32
    return np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape))


def cosines(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def original(checkpoints, name):
    """The PyTorch model of a checkpoint, and the token ids of the texts."""
    checkpoint = Checkpoint(checkpoints / name)
    tokenizer = read_tokenizer(checkpoint)
    return read_model(checkpoint).model, [tokenizer.encode(text).ids for text in TEXTS]


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_and_normalization_of_the_checkpoint_are_the_defaults_of_embed(
    pooling, normalizes, server, checkpoints
):
    name = st_name(pooling, normalizes)
    model, token_ids = original(checkpoints, name)
    with torch.inference_mode():
        expected = np.concatenate([model.pooled(torch.tensor([i]), pooling) for i in token_ids])

    response = server.embedding.Embed(EmbedRequest(model=name, texts=TEXTS))

    vectors = as_array(response.embeddings)
    assert cosines(vectors, expected).min() >= 0.99999
    norms = np.linalg.norm(vectors, axis=-1)
    wanted = np.ones(len(TEXTS)) if normalizes else np.linalg.norm(expected, axis=-1)
    assert norms == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_every_family_is_that_of_the_model(family, server, checkpoints):
    model, token_ids = original(checkpoints, family)
    for layer in range(3):
        request = EmbedTokensRequest(model=family, texts=TEXTS, layers=[layer])
        results = server.embedding.EmbedTokens(request).results
        for result, ids in zip(results, token_ids, strict=True):
            with torch.inference_mode():
                expected = model.hidden_states(torch.tensor([ids]))[layer][0].numpy()
            assert [token.id for token in result.tokens] == ids
            assert (
                cosines(as_array(result.embeddings).reshape(expected.shape), expected).min()
                >= 0.99999
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_get_the_likeliest_tokens_of_the_model(family, server, checkpoints):
    mask = MASKS.get(family, "<mask>")
    text = f"The {mask} leaves at nine."
    model, _ = original(checkpoints, family)
    ids = read_tokenizer(Checkpoint(checkpoints / family)).encode(text).ids
    with torch.inference_mode():
        hidden = model(torch.tensor([ids]))[0, [ids.index(model.tokens.mask_id)]]
        log_p = model.mask_logits(hidden).log_softmax(-1)[0]

    (result,) = server.embedding.FillMask(
        FillMaskRequest(model=family, texts=[text], top_k=5)
    ).results

    (found,) = result.masks
    assert found.start == text.index(mask)
    assert [candidate.id for candidate in found.candidates] == log_p.topk(5).indices.tolist()
