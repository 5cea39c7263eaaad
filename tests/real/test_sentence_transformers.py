"""Trained models, imported and served, give the vectors that users have in their indexes."""

import gzip
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import (
    POOLING_CLS,
    POOLING_MEAN,
    EmbedRequest,
    EmbedTokensRequest,
)
from attendant_export.__main__ import main
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.manifest import read_manifest
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.verify.original import OriginalEncoder
from attendant_server.settings import Settings

from tests.real.downloads import MINI_LM, MPNET, RealModel
from tests.support.imports import read_encoder
from tests.support.serving import LoopThread, Running, running_server

pytestmark = pytest.mark.real

EXPECTED = "REAL_EXPECTED_VECTORS"
"""The environment variable that names a file of published vectors, by name of the model."""
STS = "REAL_STS"
"""The environment variable that names a gzipped file of pairs of sentences with human scores: a
header, then score, first and second sentence in columns."""
NAME = "imported"
MAX_TOKENS = {MINI_LM.name: 256, MPNET.name: 384}
MAX_TEXTS = 256
"""Limit of texts of a call."""
MAX_SPEARMAN_LOSS = {"fp32": 1e-4, "int8": 0.005}
"""Of the rank correlation with human scores, against the original."""


@pytest.fixture(scope="module", params=[MINI_LM, MPNET], ids=lambda model: model.name)
def model(request) -> RealModel:
    chosen: RealModel = request.param
    return chosen


@pytest.fixture(scope="module")
def source(model) -> Path:
    folder: Path = model.fetch()
    return folder


@pytest.fixture(scope="module")
def bundle(source, tmp_path_factory):
    """The bundle of fp32 and int8; importing compares it with the original, if installed."""
    bundles = tmp_path_factory.mktemp("bundles")
    options = ["--name", NAME, "--license", "Apache-2.0", "--precisions", "fp32,int8"]
    main(["import", str(source), "--bundles-dir", str(bundles), *options])
    return bundles / NAME / "1"


@pytest.fixture(scope="module")
def servers(bundle):
    """A server of each precision."""
    loop = LoopThread()
    address: dict[str, Any] = {"host": "127.0.0.1", "metrics_host": "127.0.0.1"}
    ports: dict[str, Any] = {"port": 0, "metrics_port": 0, "lame_duck_seconds": 0.0}
    fp32, int8 = (
        Settings(bundles=bundle.parents[1], precision=precision, **address, **ports)
        for precision in ("fp32", "int8")
    )
    with running_server(loop, fp32) as first, running_server(loop, int8) as second:
        yield {"fp32": first, "int8": second}
    loop.close()


@pytest.fixture(scope="module")
def published(model) -> dict[str, Any]:
    if not (path := os.environ.get(EXPECTED)):
        pytest.skip(f"NOT CHECKED: {EXPECTED} names no file of published vectors")
    with gzip.open(path, "rt", encoding="utf-8") as content:
        vectors: dict[str, Any] = json.load(content)[f"sentence-transformers/{model.name}"]
    return vectors


@pytest.fixture(scope="module")
def scored_pairs() -> tuple[np.ndarray, list[str], list[str]]:
    if not (path := os.environ.get(STS)):
        pytest.skip(f"NOT CHECKED: {STS} names no file of sentences with scores")
    with gzip.open(path, "rt", encoding="utf-8") as content:
        rows = [line.rstrip("\n").split("\t")[:3] for line in content][1:]
    scores, first, second = zip(*rows, strict=True)
    return np.array(scores, float), list(first), list(second)


@pytest.fixture(scope="module")
def original_spearman(source, scored_pairs) -> float:
    scores, *sides = scored_pairs
    original, tokenizer = OriginalEncoder(source), read_tokenizer(Checkpoint(source))
    tokenizer.no_padding()
    first, second = (
        np.concatenate(
            [original.hidden_states(tokenizer.encode(text).ids)[-1].mean(1) for text in texts]
        )
        for texts in sides
    )
    return spearman(cosines(first, second), scores)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The rank correlation; equal values share the mean of their ranks."""
    ranks = []
    for values in (a, b):
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[places])
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def vectors_of(server: Running, texts: list[str], **options: Any) -> np.ndarray:
    embeddings = server.embedding.Embed(EmbedRequest(texts=texts, **options)).embeddings
    return np.frombuffer(embeddings.data, "<f4").reshape(list(embeddings.shape))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    similar: np.ndarray = (a * b).sum(-1)
    return similar / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def test_the_defaults_are_those_of_the_folder(bundle, model):
    manifest = read_manifest(bundle)
    assert (manifest.embedding.pooling, manifest.embedding.normalize) == (POOLING_MEAN, True)
    assert manifest.limits.max_tokens == MAX_TOKENS[model.name]
    assert not manifest.architecture.HasField("head")


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("int8", 0.97)])
def test_served_vectors_are_those_of_the_checkpoint(precision, least, servers, source):
    texts = sample_texts()
    original, tokenizer = read_encoder(source).model, read_tokenizer(Checkpoint(source))
    tokenizer.no_padding()
    ids = [tokenizer.encode(text).ids for text in texts]
    with torch.inference_mode():
        expected = np.concatenate([original.pooled(torch.tensor([each])) for each in ids])
    assert cosines(vectors_of(servers[precision], texts), expected).min() >= least


def test_served_vectors_are_those_that_were_published(servers, published):
    # The file calls them mean-pooled; they are the last hidden states of [CLS].
    expected = np.array(published["pooled_mean_not_normalized"])
    found = vectors_of(servers["fp32"], published["texts"], pooling=POOLING_CLS, normalize=False)
    assert cosines(found, expected).min() >= 0.99999
    # Some were computed in half precision.
    assert found == pytest.approx(expected, abs=0.004)


def test_served_hidden_states_are_those_that_were_published(servers, published):
    request = EmbedTokensRequest(texts=published["texts"][:1])
    (result,) = servers["fp32"].embedding.EmbedTokens(request).results
    expected = np.array(published["tokens_of_first_text"])
    found = np.frombuffer(result.embeddings.data, "<f4").reshape(expected.shape)
    assert cosines(found, expected).min() >= 0.99999


def test_similar_sentences_are_more_similar_than_others(servers):
    texts = ["The dog is barking.", "A dog barks.", "Shares fell sharply on Monday."]
    first, second, third = vectors_of(servers["fp32"], texts)
    assert first @ second > 0.8 > 0.3 > first @ third


@pytest.mark.skipif(not find_spec("transformers"), reason="NOT CHECKED: needs transformers")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_similarities_rank_pairs_as_those_of_the_original_do(
    precision, servers, scored_pairs, original_spearman
):
    scores, *sides = scored_pairs
    first, second = (
        np.concatenate(
            [
                vectors_of(servers[precision], texts[i : i + MAX_TEXTS])
                for i in range(0, len(texts), MAX_TEXTS)
            ]
        )
        for texts in sides
    )
    found = spearman(cosines(first, second), scores)
    print(f"Spearman: {found:.4f} in {precision}, {original_spearman:.4f} of the original")
    assert found == pytest.approx(original_spearman, abs=MAX_SPEARMAN_LOSS[precision])


@pytest.mark.skipif(not find_spec("transformers"), reason="NOT CHECKED: needs transformers")
def test_the_comparison_with_the_original_is_in_the_manifest(bundle, source, capsys):
    parity = read_manifest(bundle).parity.original
    assert parity.num_texts == len(sample_texts())
    assert parity.num_different_token_ids == 0
    assert parity.min_cosine >= 0.99999
    main(["verify", str(bundle), "--against", str(source)])
    assert "0 of 64 texts have other token ids" in capsys.readouterr().out
