"""Imported classifiers behind a real server give the scores of their models."""

import json
import shutil

import grpc
import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import (
    SCORE_FUNCTION_IDENTITY,
    SCORE_FUNCTION_SIGMOID,
    SCORE_FUNCTION_SOFTMAX,
    ClassifyRequest,
    EmbedRequest,
)
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import TRUNCATION_LEFT, TRUNCATION_RIGHT
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_server.bundles import BundleError, read_bundle
from attendant_server.loading import ModelLoader, read_bundles
from attendant_server.observability.metrics import Metrics
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.settings import Settings

from tests.support.altered import with_manifest
from tests.support.bundles import one_thread
from tests.support.checkpoints import write_checkpoint
from tests.support.classifiers import write_classifier
from tests.support.serving import failure_of, running_server

transformers = pytest.importorskip("transformers")

TEXTS = ["The train leaves at nine.", "Où est la gare ?", "No.", "She opened the window at night."]
SECOND = ["It is late.", "At the end of this long street.", "Yes.", "a"]
LONG = "The train to the coast leaves at half past nine every morning, but not on Sundays. " * 4
MAX_TOKENS = 60
FUNCTIONS = {"bert": SCORE_FUNCTION_SOFTMAX, "xlm-roberta": SCORE_FUNCTION_SIGMOID}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, translation_bundle):
    """A classifier of three labels, a cross-encoder of one label, and an encoder without labels."""
    root = tmp_path_factory.mktemp("classifiers")
    names = {0: "bad", 1: "fair", 2: "good"}
    sources = [
        write_classifier(root / "bert", "bert", seed=4, id2label=names),
        write_classifier(root / "xlm-roberta", "xlm-roberta", num_labels=1),
        write_checkpoint(root / "plain", "bert"),
    ]
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
def logits(folder, name, *texts):
    """The scores of a text or a pair by the original implementation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / name)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / name).eval()
    options = {"truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
    return model(**tokenizer(*texts, **options)).logits[0].double().numpy()


def applied(function, scores):
    if function == SCORE_FUNCTION_SIGMOID:
        return 1 / (1 + np.exp(-scores))
    return np.exp(scores) / np.exp(scores).sum()


def classify(server, texts=TEXTS, second=(), **fields):
    request = ClassifyRequest(texts=texts, text_pairs=second, **fields)
    return server.embedding.Classify(request)


@pytest.mark.parametrize("second", [(), SECOND], ids=["texts", "pairs"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_are_those_of_the_original_for_texts_and_pairs(server, folder, name, second):
    response = classify(server, TEXTS, second, model=name)
    raw = classify(server, TEXTS, second, model=name, raw_scores=True)
    labels = list(server.models.GetModel(GetModelRequest(model=name)).labels)
    assert (response.score_function, raw.score_function) == (FUNCTIONS[name], 1)
    assert response.token_counts.num_input_tokens > 0
    for i, (result, unchanged) in enumerate(zip(response.results, raw.results, strict=True)):
        expected = logits(folder, name, TEXTS[i], *second[i : i + 1])
        order = np.argsort(-expected)
        assert [each.label for each in result.labels] == [labels[k] for k in order]
        for found, scores in (
            (result, applied(FUNCTIONS[name], expected)),
            (unchanged, expected),
        ):
            found = [each.score for each in found.labels]
            assert found == pytest.approx(scores[order].tolist(), abs=1e-4)


def batches_and_texts(server):
    """The numbers of batches and of texts that the classifier of texts has run."""
    names = [f"attendant_encode_batch_texts_{part}" for part in ("count", "sum")]
    return np.array([server.metric(name, model="bert/1") for name in names])


def test_pairs_texts_and_vectors_share_a_batch_without_mixing(server):
    alone = [classify(server, [a], [b], model="bert") for a, b in zip(TEXTS, SECOND, strict=True)]
    single = [classify(server, [a], model="bert") for a in TEXTS]
    vectors = server.embedding.Embed(EmbedRequest(texts=TEXTS, model="bert"))
    before = batches_and_texts(server)
    with server.held_engine():
        together = [
            server.embedding.Classify.future(
                ClassifyRequest(texts=TEXTS, text_pairs=pairs, model="bert")
            )
            for pairs in (SECOND, ())
        ]
        embedded = server.embedding.Embed.future(EmbedRequest(texts=TEXTS, model="bert"))
        server.wait_for_queued(3 * len(TEXTS), model="bert/1")
    found, expected = (
        np.frombuffer(each.embeddings.data, np.float32) for each in (embedded.result(), vectors)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for separate, call in zip((alone, single), together, strict=True):
        for one, result in zip(separate, call.result().results, strict=True):
            assert [each.label for each in one.results[0].labels] == [
                each.label for each in result.labels
            ]
            scores = [each.score for each in result.labels]
            assert [each.score for each in one.results[0].labels] == pytest.approx(scores, abs=1e-5)
    assert tuple(batches_and_texts(server) - before) == (1, 3 * len(TEXTS))


def test_a_model_is_described_with_its_labels_and_function(server):
    model = server.models.GetModel(GetModelRequest(model="bert"))
    assert list(model.labels) == ["bad", "fair", "good"]
    assert model.score_function == SCORE_FUNCTION_SOFTMAX
    plain = server.models.GetModel(GetModelRequest(model="plain"))
    assert (list(plain.labels), plain.score_function) == ([], 0)


def test_the_likeliest_labels_are_returned_alone(server):
    all_labels = classify(server, model="bert").results
    for result, best in zip(
        all_labels, classify(server, model="bert", top_k=2).results, strict=True
    ):
        assert len(result.labels) == 3
        assert list(best.labels) == list(result.labels)[:2]
    assert len(classify(server, model="bert", top_k=50).results[0].labels) == 3


@pytest.mark.parametrize("second", ["It is late.", LONG])
def test_of_a_pair_that_is_too_long_the_longer_text_is_cut_first(server, folder, second):
    for name in FUNCTIONS:
        refused = classify(server, [LONG], [second], model=name).results[0]
        assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert refused.error.message.startswith(f"texts[0]: at most {MAX_TOKENS} tokens, got ")
        fields = {"model": name, "raw_scores": True}
        cut = classify(server, [LONG], [second], truncation=TRUNCATION_RIGHT, **fields).results[0]
        expected = -np.sort(-logits(folder, name, LONG, second))
        assert [each.score for each in cut.labels] == pytest.approx(expected.tolist(), abs=1e-4)
        assert cut.truncation.num_kept_tokens == MAX_TOKENS
        other = classify(server, [LONG], [second], truncation=TRUNCATION_LEFT, **fields).results[0]
        assert other.truncation.num_kept_tokens == MAX_TOKENS


def test_a_text_without_content_is_a_fault_of_its_pair(server):
    results = classify(server, ["a", " ", "a"], ["b", "b", ""], model="bert").results
    assert [result.error.message for result in results] == [
        "",
        "texts[1]: is empty, or has nothing that the model can read",
        "text_pairs[2]: is empty, or has nothing that the model can read",
    ]
    assert len(results[0].labels) == 3
    assert not results[1].labels


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"texts": []}, "INVALID_ARGUMENT", "texts: at least 1, got 0"),
        (
            {"text_pairs": ["a"] * 3},
            "INVALID_ARGUMENT",
            "text_pairs: none or one for each of 4 texts, got 3",
        ),
        ({"top_k": 0}, "INVALID_ARGUMENT", "top_k: must be between 1 and 100, got 0"),
        ({"truncation": 9}, "INVALID_ARGUMENT", "truncation: has no value 9"),
        ({"model": "plain"}, "FAILED_PRECONDITION", "plain/1 has no classification head"),
        ({"model": ""}, "INVALID_ARGUMENT", "model: must name one of bert/1, xlm-roberta/1"),
        ({"model": "other"}, "NOT_FOUND", "model: no such model"),
    ],
)
def test_bad_requests_are_named(server, fields, code, message):
    request = {"model": "bert", "texts": TEXTS} | fields
    failure = failure_of(server.embedding.Classify, ClassifyRequest(**request))
    assert failure.code().name == code
    assert failure.details().startswith(message)


def test_the_client_classifies_texts_and_ranks_pairs(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        best = client.classify(TEXTS[0], model="bert", top_k=1).labels[0]
        assert best.label in client.model("bert").labels
        assert client.model("bert").score_function == "softmax"
        ranked = client.classify([TEXTS[0]] * 2, SECOND[:2], model="xlm-roberta")
        assert all(0 < result.score < 1 for result in ranked)


def test_an_answer_that_long_labels_make_too_large_is_refused(tmp_path, loop, settings):
    names = {0: "n" * 10_000, 1: "no", 2: "yes"}
    source = write_classifier(tmp_path / "long", "bert", id2label=names)
    with one_thread():
        import_bundle(source, tmp_path / "bundles", ImportOptions())
    with running_server(
        loop, settings(bundles=tmp_path / "bundles", max_response_bytes=30_000)
    ) as (server):
        assert len(classify(server, TEXTS[:2]).results) == 2
        failure = failure_of(server.embedding.Classify, ClassifyRequest(texts=TEXTS))
        assert failure.details().startswith("texts: the answer could take 40212 bytes, at most 300")


def test_raw_scores_are_not_changed(server):
    assert classify(server, model="bert", raw_scores=True).score_function == SCORE_FUNCTION_IDENTITY


def test_a_limit_without_room_for_two_texts_is_refused(folder, tmp_path):
    def load(max_tokens):
        root = with_manifest(
            folder / "bundles/bert/1",
            tmp_path / str(max_tokens),
            lambda manifest: manifest["limits"].update(max_tokens=max_tokens),
        )
        metrics, settings = Metrics(), Settings(bundles=root, num_threads=1)
        metrics.add_model("bert/1", "embedding", "fp32", [])
        ModelLoader(settings, metrics).load(read_bundles(settings, ())[0])

    load(5)
    with pytest.raises(BundleError, match="max_tokens is 4, but special tokens of a pair take 3"):
        load(4)


def test_names_of_labels_count_for_the_size_of_an_answer(folder, tmp_path, loop, settings):
    names = [letter * 500 for letter in "abc"]
    root = with_manifest(
        folder / "bundles/bert/1",
        tmp_path,
        lambda manifest: manifest["classification"].update(labels=names),
    )
    with running_server(loop, settings(bundles=root, max_response_bytes=2000)) as running:
        assert len(classify(running, ["a"]).results[0].labels) == 3
        request = ClassifyRequest(texts=["a", "b"])
        failure = failure_of(running.embedding.Classify, request)
    assert failure.details().startswith("texts: the answer could take 3096 bytes, at most 2000")


def test_a_bundle_with_other_labels_than_its_graph_is_not_loaded(folder, tmp_path):
    bundle = shutil.copytree(folder / "bundles/bert/1", tmp_path / "bert/1")
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["architecture"]["classification_head"]["num_labels"] = 2
    manifest["classification"]["labels"].pop()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match="label_scores has 3 values, not 2; check classification"):
        OnnxEmbeddingModel(read_bundle(bundle, "auto", "cpu"), 1, "cpu", RunCounter(1))
