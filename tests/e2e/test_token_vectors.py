"""Imported models of late interaction behind a real server give the vectors of their originals."""

import json
import shutil

import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import TRUNCATION_RIGHT
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_server.bundles import read_bundle
from safetensors.torch import load_file

from tests.support.bundles import one_thread
from tests.support.checkpoints import WIDTH
from tests.support.colbert_checkpoints import (
    DIMENSION,
    MARKERS,
    PYLATE_MARKERS,
    write_colbert,
    write_pylate,
)
from tests.support.models import embedding_model
from tests.support.serving import running_server

transformers = pytest.importorskip("transformers")

TEXTS = ["The train leaves at nine.", "No.", "She opened the window at night, as always."]
NAMES = {"colbert": MARKERS, "pylate-bert": PYLATE_MARKERS, "pylate-modernbert": PYLATE_MARKERS}
"""The markers of each model."""
LAYERS = {"colbert": [("", "linear")], "pylate": [("1_Dense", "linear"), ("2_Dense", "linear")]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("late")
    sources = [
        write_colbert(root / "colbert", doc_maxlen=60),
        write_pylate(root / "pylate-bert"),
        write_pylate(root / "pylate-modernbert", "modernbert"),
    ]
    with one_thread():
        for source in sources:
            import_bundle(source, root / "bundles", ImportOptions())
    return root


@pytest.fixture(scope="module")
def server(folder, loop, settings):
    with running_server(loop, settings(bundles=folder / "bundles")) as running:
        yield running


@torch.inference_mode()
def original(folder, name, text, marker):
    """The vectors of a text by the original's encoder, with the marker's id put after [CLS]."""
    source = folder / name
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModel.from_pretrained(source).eval()
    ids = tokenizer(text)["input_ids"]
    ids.insert(1, tokenizer.convert_tokens_to_ids(marker))
    x = model(torch.tensor([ids])).last_hidden_state[0]
    for path, layer in LAYERS[name.partition("-")[0]]:
        weights = load_file(source / path / "model.safetensors")
        bias = weights.get(f"{layer}.bias")
        x = torch.nn.functional.linear(x, weights[f"{layer}.weight"], bias)
    return ids, torch.nn.functional.normalize(x, dim=-1).numpy()


def embed_tokens(server, texts, **fields):
    return server.embedding.EmbedTokens(EmbedTokensRequest(texts=texts, **fields)).results


def array(tensor):
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_queries_and_documents_in_a_batch_are_those_of_the_original(
    server, folder, name
):
    model = server.models.GetModel(GetModelRequest(model=name))
    assert dict(model.prompts) == NAMES[name]
    assert model.embedding_sizes.token_dimension == DIMENSION
    marked = [(text, marker) for marker in model.prompts.values() for text in TEXTS]
    results = embed_tokens(server, [marker + text for text, marker in marked], model=name)
    for (text, marker), result in zip(marked, results, strict=True):
        ids, expected = original(folder, name, text, marker)
        assert [token.id for token in result.tokens] == ids
        assert array(result.embeddings) == pytest.approx(expected, abs=2e-5)


def test_layers_and_vectors_of_texts_are_those_of_the_encoder(server):
    (both,) = embed_tokens(server, TEXTS[:1], model="colbert", layers=[0, -1])
    assert list(both.embeddings.shape) == [2, len(both.tokens), WIDTH]
    response = server.embedding.Embed(EmbedRequest(texts=TEXTS[:1], model="colbert"))
    assert array(response.embeddings)[0] == pytest.approx(
        array(both.embeddings)[1].mean(0), abs=1e-5
    )


def test_a_truncated_document_keeps_its_marker(server):
    text = MARKERS["document"] + TEXTS[2] * 8
    (refused,) = embed_tokens(server, [text], model="colbert")
    assert refused.error.message.startswith("texts[0]: at most 60 tokens")
    (cut,) = embed_tokens(server, [text], model="colbert", truncation=TRUNCATION_RIGHT)
    assert (len(cut.tokens), cut.tokens[1].text) == (60, "[unused1]")
    assert list(cut.embeddings.shape) == [60, DIMENSION]


@pytest.mark.parametrize("part", ["token_vectors", "text_vectors"])
def test_a_bundle_with_another_dimension_than_its_graph_is_not_loaded(folder, tmp_path, part):
    bundle = shutil.copytree(folder / "bundles/colbert/1", tmp_path / "colbert/1")
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    dense = manifest["architecture"]["token_vectors"]["dense_layers"][-1] | {"d_output": 24}
    manifest["architecture"].setdefault(part, {})["dense_layers"] = [dense]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match=f"values, not 24; check architecture.{part}"):
        embedding_model(read_bundle(bundle, "fp32", "cpu"))


def test_the_client_returns_vectors_of_length_1(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        prompt = client.model("colbert").prompts["query"]
        found = client.embed_tokens(prompt + TEXTS[0], model="colbert").embeddings
        assert np.linalg.norm(found, axis=-1) == pytest.approx(np.ones(len(found)), abs=1e-6)
