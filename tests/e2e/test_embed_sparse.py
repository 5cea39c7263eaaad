"""Imported SPLADE models behind a real server give the sparse vectors of their originals."""

import shutil
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedSparseRequest, FillMaskRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import TRUNCATION_LEFT, TRUNCATION_RIGHT
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_server.bundles import read_bundle
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.model_graphs import RunCounter

from tests.support.altered import with_manifest
from tests.support.bundles import one_thread
from tests.support.checkpoints import change_json, write_checkpoint
from tests.support.serving import failure_of, running_server
from tests.support.splade_checkpoints import write_splade

transformers = pytest.importorskip("transformers")

TEXTS = ["The train leaves at nine.", "Où est la gare ?", "No.", "She opened the window at night."]
LONG = "The train to the coast leaves at half past nine every morning, but not on Sundays. " * 4
MAX_TOKENS = 60
NAMES = ("bert", "roberta")
PROMPT = "query: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory, translation_bundle):
    """Models of both poolings, one with a default prompt, and an encoder without sparse vectors."""
    root = tmp_path_factory.mktemp("splade")
    prompts: dict[str, Any] = {
        "prompts": {"query": PROMPT, "document": ""},
        "default_prompt_name": "query",
    }
    sources = [
        write_splade(root / "bert"),
        write_splade(
            root / "roberta",
            "roberta",
            package={"max_active_dims": 12},
            pooling_strategy="sum",
            activation_function="log1p_relu",
        ),
        shutil.copytree(root / "bert", root / "prompted"),
        write_checkpoint(root / "plain", "bert"),
    ]
    change_json(root / "prompted/config_sentence_transformers.json", **prompts)
    with one_thread():
        for source in sources:
            import_bundle(source, root / "bundles", ImportOptions(max_tokens=MAX_TOKENS))
    # A call of this model holds the engine.
    shutil.copytree(translation_bundle, root / "bundles" / translation_bundle.parent.name / "1")
    return root


@pytest.fixture(scope="module")
def server(folder, loop, settings):
    with running_server(loop, settings(bundles=folder / "bundles")) as running:
        yield running


@torch.inference_mode()
def original(folder, name, text):
    """The vector of a text by the masked language model of the original implementation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / name)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder / name).eval()
    tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    weights = torch.log1p(torch.relu(model(**tokens).logits[0]))
    if name == "roberta":
        return torch.log1p(weights).sum(dim=0).numpy()
    return weights.amax(dim=0).numpy()


def embed_sparse(server, texts=TEXTS, **fields):
    return server.embedding.EmbedSparse(EmbedSparseRequest(texts=texts, **fields))


def dense(result, size):
    vector = np.zeros(size, np.float32)
    vector[list(result.token_ids)] = result.weights
    return vector


def greatest(vector, number):
    """``vector`` with its greatest weights only."""
    kept = np.argsort(-vector, kind="stable")[:number]
    found = np.zeros_like(vector)
    found[kept] = vector[kept]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_the_original(server, folder, name):
    sizes = server.models.GetModel(GetModelRequest(model=name)).embedding_sizes
    size = sizes.sparse_dimension
    response = embed_sparse(server, model=name, max_active_dims=size)
    assert size == sizes.vocab_size
    assert response.model == f"{name}/1"
    for text, result in zip(TEXTS, response.results, strict=True):
        expected = original(folder, name, text)
        assert dense(result, size) == pytest.approx(expected, abs=1e-4, rel=1e-4)
        assert list(result.token_ids) == sorted(result.token_ids)
        assert all(weight > 0 for weight in result.weights)
        assert 0 < len(result.weights) < size
        assert not result.tokens
    assert response.token_counts.num_input_tokens == sum(
        result.num_tokens for result in response.results
    )


def test_the_greatest_weights_are_kept(server, folder):
    size = server.models.GetModel(GetModelRequest(model="bert")).embedding_sizes.sparse_dimension
    every = embed_sparse(server, model="bert").results
    for number in (1, 10, size, 2**32 - 1):
        few = embed_sparse(server, model="bert", max_active_dims=number).results
        for all_, kept in zip(every, few, strict=True):
            assert len(kept.weights) == min(number, len(all_.weights))
            np.testing.assert_array_equal(dense(kept, size), greatest(dense(all_, size), number))


def test_a_bundle_has_its_own_number_of_weights(server):
    assert server.models.GetModel(GetModelRequest(model="roberta")).default_max_active_dims == 12
    model = server.models.GetModel(GetModelRequest(model="bert"))
    assert not model.HasField("default_max_active_dims")
    results = embed_sparse(server, model="roberta").results
    assert [len(result.weights) for result in results] == [12] * len(TEXTS)
    results = embed_sparse(server, model="roberta", max_active_dims=20).results
    assert [len(result.weights) for result in results] == [20] * len(TEXTS)


def test_tokens_are_those_of_the_vocabulary(server, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "bert")
    (result,) = embed_sparse(server, TEXTS[:1], model="bert", return_tokens=True).results
    assert list(result.tokens) == tokenizer.convert_ids_to_tokens(list(result.token_ids))


def test_the_default_prompt_is_read_with_a_text(server):
    (prompted,) = embed_sparse(server, TEXTS[:1], model="prompted").results
    (spelled,) = embed_sparse(server, [PROMPT + TEXTS[0]], model="bert").results
    assert prompted == spelled


def batches_and_texts(server):
    """The numbers of batches and of texts that the model has run."""
    names = [f"attendant_encode_batch_texts_{part}" for part in ("count", "sum")]
    return np.array([server.metric(name, model="bert/1") for name in names])


def test_sparse_and_dense_vectors_share_a_batch_without_mixing(server):
    alone = [embed_sparse(server, [text], model="bert").results[0] for text in TEXTS]
    vectors = server.embedding.Embed(EmbedRequest(texts=TEXTS, model="bert"))
    size = server.models.GetModel(GetModelRequest(model="bert")).embedding_sizes.sparse_dimension
    before = batches_and_texts(server)
    with server.held_engine():
        request = EmbedSparseRequest(texts=TEXTS, model="bert")
        together = server.embedding.EmbedSparse.future(request)
        embedded = server.embedding.Embed.future(EmbedRequest(texts=TEXTS, model="bert"))
        server.wait_for_queued(2 * len(TEXTS), model="bert/1")
    for one, result in zip(alone, together.result().results, strict=True):
        assert dense(result, size) == pytest.approx(dense(one, size), abs=1e-5)
    found, expected = (
        np.frombuffer(each.embeddings.data, np.float32) for each in (embedded.result(), vectors)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert tuple(batches_and_texts(server) - before) == (1, 2 * len(TEXTS))


def test_a_text_that_is_too_long_is_refused_or_cut(server, folder):
    size = server.models.GetModel(GetModelRequest(model="bert")).embedding_sizes.sparse_dimension
    (refused,) = embed_sparse(server, [LONG], model="bert").results
    assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.error.message.startswith(f"texts[0]: at most {MAX_TOKENS} tokens, got ")
    assert not refused.token_ids
    (cut,) = embed_sparse(server, [LONG], model="bert", truncation=TRUNCATION_RIGHT).results
    assert dense(cut, size) == pytest.approx(original(folder, "bert", LONG), abs=1e-4)
    assert (cut.num_tokens, cut.truncation.num_kept_tokens) == (MAX_TOKENS, MAX_TOKENS)
    (other,) = embed_sparse(server, [LONG], model="bert", truncation=TRUNCATION_LEFT).results
    assert dense(other, size) != pytest.approx(dense(cut, size), abs=1e-2)


def test_an_empty_text_is_a_fault_of_its_own(server):
    good, bad = embed_sparse(server, ["a", " "], model="bert").results
    assert good.weights
    assert bad.error.message == "texts[1]: is empty, or has nothing that the model can read"


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"texts": []}, "INVALID_ARGUMENT", "texts: at least 1, got 0"),
        ({"max_active_dims": 0}, "INVALID_ARGUMENT", "max_active_dims: at least 1, got 0"),
        ({"truncation": 9}, "INVALID_ARGUMENT", "truncation: has no value 9"),
        ({"model": "plain"}, "FAILED_PRECONDITION", "plain/1 has no sparse vectors"),
        ({"model": ""}, "INVALID_ARGUMENT", "model: must name one of bert/1, prompted/1, rob"),
        ({"model": "other"}, "NOT_FOUND", "model: no such model"),
        ({"model": "tiny-en-de"}, "INVALID_ARGUMENT", "model: tiny-en-de/1 is no embedding model"),
    ],
)
def test_bad_requests_are_named(server, fields, code, message):
    request = {"model": "bert", "texts": TEXTS} | fields
    failure = failure_of(server.embedding.EmbedSparse, EmbedSparseRequest(**request))
    assert failure.code().name == code
    assert failure.details().startswith(message)


def test_a_splade_model_fills_no_masks(server):
    request = FillMaskRequest(texts=["[MASK]"], model="bert")
    failure = failure_of(server.embedding.FillMask, request)
    assert failure.code().name == "FAILED_PRECONDITION"
    assert not server.models.GetModel(GetModelRequest(model="plain")).embedding_sizes.HasField(
        "sparse_dimension"
    )


def test_the_client_returns_arrays(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        assert client.model("roberta").default_max_active_dims == 12
        assert client.model("bert").default_max_active_dims is None
        first, second = client.embed_sparse(TEXTS[:2], model="bert", return_tokens=True)
        assert len(first.token_ids) == len(first.weights) == len(first.tokens)
        assert first.num_tokens > second.num_tokens > 2
        assert client.embed_sparse(TEXTS[0], model="bert", max_active_dims=3).weights.shape == (3,)
        with pytest.raises(ValueError, match="max_active_dims|out of range|range"):
            client.embed_sparse("a", max_active_dims=-1)


def test_an_answer_with_too_many_weights_is_refused(folder, loop, settings):
    bundles = settings(bundles=folder / "bundles", models=("bert",), max_response_bytes=5000)
    with running_server(loop, bundles) as server:
        assert embed_sparse(server, TEXTS[:1]).results[0].weights
        failure = failure_of(server.embedding.EmbedSparse, EmbedSparseRequest(texts=TEXTS * 2))
        assert failure.code().name == "INVALID_ARGUMENT"
        assert failure.details().startswith("texts: the answer could take ")
        assert embed_sparse(server, TEXTS * 2, max_active_dims=10).results[0].weights


def test_a_bundle_with_another_vocabulary_than_its_head_is_not_loaded(folder, tmp_path):
    def change(manifest):
        manifest["architecture"]["source_embeddings"]["vocab_size"] -= 1

    root = with_manifest(folder / "bundles/bert/1", tmp_path, change)
    bundle = read_bundle(root / "bert/1", "auto", "cpu")
    with pytest.raises(ValueError, match=r"sparse_head cannot run: it weighs \d+ tokens, not"):
        OnnxEmbeddingModel(bundle, 1, "cpu", RunCounter(1))


def test_vectors_of_the_longest_text_do_not_depend_on_the_parts_of_its_positions(folder):
    bundle = read_bundle(folder / "bundles/bert/1", "auto", "cpu")
    model = OnnxEmbeddingModel(bundle, 1, "cpu", RunCounter(1))
    model.release_memory()
    rng = np.random.default_rng(5)
    texts = [rng.integers(5, 300, length).tolist() for length in (60, 3, 17)]
    together = model.embed(texts, ["sparse_vectors"])["sparse_vectors"]
    for text, vector in zip(texts, together, strict=True):
        (alone,) = model.embed([text], ["sparse_vectors", "mean_pooled"])["sparse_vectors"]
        np.testing.assert_allclose(vector, alone, atol=1e-5)
