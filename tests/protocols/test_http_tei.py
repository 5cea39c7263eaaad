"""The HTTP routes of Text Embeddings Inference beside its gRPC services."""

import numpy as np
import pytest
from attendant_server import __version__
from attendant_vendored.tei import tei_pb2 as messages

TEXTS = ["The dog sees the king.", "The old cat.", "The old king"]
LONG = " ".join(TEXTS * 20)
CLASSIFIER = {"attendant_model": "tiny-classifier"}


def float32(numbers):
    return np.array(numbers, np.float32)


def test_vectors_are_those_of_grpc(http, tei):
    own = [tei.embed.Embed(messages.EmbedRequest(inputs=text)).embeddings for text in TEXTS]
    np.testing.assert_allclose(http.post("/embed", {"inputs": TEXTS}).json, own, atol=1e-2)
    np.testing.assert_array_equal(
        float32(http.post("/embed", {"inputs": TEXTS[0]}).json), float32(own[:1])
    )
    raw = tei.embed.Embed(messages.EmbedRequest(inputs=TEXTS[0], normalize=False)).embeddings
    found = http.post("/embed", {"inputs": TEXTS[0], "normalize": False}).json
    np.testing.assert_array_equal(float32(found), float32([raw]))


@pytest.mark.parametrize(("direction", "number"), [("Right", 0), ("left", 1)])
def test_long_texts_are_refused_or_truncated_on_request(http, tei, direction, number):
    assert http.post("/embed", {"inputs": LONG}).status == 413
    request = {"inputs": LONG, "truncate": True, "truncation_direction": direction}
    own = tei.embed.Embed(
        messages.EmbedRequest(
            inputs=LONG,
            truncate=True,
            truncation_direction=messages.TruncationDirection.Value(
                "TRUNCATION_DIRECTION_LEFT" if number else "TRUNCATION_DIRECTION_RIGHT"
            ),
        )
    )
    found = http.post("/embed", request).json
    np.testing.assert_array_equal(float32(found), float32([own.embeddings]))


def test_vectors_of_tokens_and_sparse_vectors_are_those_of_grpc(http, tei):
    tokens = tei.embed.EmbedAll(messages.EmbedAllRequest(inputs=TEXTS[0])).token_embeddings
    [found] = http.post("/embed_all", {"inputs": TEXTS[0]}).json
    own = [token.embeddings for token in tokens]
    np.testing.assert_array_equal(float32(found), float32(own))
    sparse = tei.embed.EmbedSparse(messages.EmbedSparseRequest(inputs=TEXTS[0])).sparse_embeddings
    [found] = http.post("/embed_sparse", {"inputs": [TEXTS[0]]}).json
    assert [(each["index"], np.float32(each["value"])) for each in found] == [
        (each.index, np.float32(each.value)) for each in sparse
    ]


def test_labels_are_those_of_grpc_for_a_text_a_pair_and_a_list(http, tei):
    def labels(predictions):
        return [each.label for each in predictions]

    one = tei.predict.Predict(messages.PredictRequest(inputs=TEXTS[0])).predictions
    pair = tei.predict.PredictPair(messages.PredictPairRequest(inputs=TEXTS[:2])).predictions
    for inputs, own in ((TEXTS[0], one), (TEXTS[:1], one), (TEXTS[:2], pair)):
        found = http.post("/predict", {"inputs": inputs}, **CLASSIFIER).json
        assert [each["label"] for each in found] == labels(own)
        np.testing.assert_allclose(
            [each["score"] for each in found], [each.score for each in own], atol=1e-6
        )
    several = http.post("/predict", {"inputs": [[text] for text in TEXTS]}).json
    assert [each["label"] for each in several[0]] == labels(one)
    assert len(several) == len(TEXTS)


def test_tokens_are_those_of_grpc_and_are_decoded(http, tei):
    request = messages.EncodeRequest(inputs="The kïng", add_special_tokens=True)
    own = tei.tokenize.Tokenize(request).tokens
    [found] = http.post("/tokenize", {"inputs": "The kïng"}).json
    assert [(each["id"], each["text"], each["special"]) for each in found] == [
        (each.id, each.text, each.special) for each in own
    ]
    assert [each["stop"] for each in found if not each["special"]] == [
        each.stop for each in own if not each.special
    ]
    ids = [each.id for each in own]
    text = tei.tokenize.Decode(messages.DecodeRequest(ids=ids, skip_special_tokens=True)).text
    assert http.post("/decode", {"ids": ids}).json == [text]
    assert http.post("/decode", {"ids": [ids, ids]}).json == [text, text]


def test_info_and_health_describe_the_server(http):
    info = http.get("/info").json
    assert (info["model_id"], info["version"]) == ("tiny-bert/1", __version__)
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    labels = http.get("/info", **CLASSIFIER).json["model_type"]["classifier"]["id2label"]
    assert labels == {"0": "bad", "1": "fair", "2": "good"}
    assert (http.get("/health").status, http.get("/health").json) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "message"),
    [
        ("embed", {"inputs": 5}, 422, "validation", "inputs: expected"),
        ("embed", {"inputs": [1, 2]}, 413, "validation", "inputs: must be a text"),
        ("embed", {"inputs": ""}, 422, "validation", "inputs: expected"),
        ("embed", {"inputs": "the", "prompt_name": "none"}, 413, "validation", "prompt_name: "),
        ("embed_all", {"inputs": "the", "prompt_name": "x"}, 422, "validation", "prompt_name: "),
        ("predict", {"inputs": TEXTS}, 413, "validation", "inputs: must be 2 texts, got 3"),
        ("decode", {"ids": [[]] * 4096}, 422, "validation", "body: at most 4096 lists"),
        ("predict", {"inputs": [["a", "b", "c"]]}, 422, "validation", "body: expected array"),
        ("predict", {"inputs": [["a"], ["a", "b"]]}, 413, "validation", "inputs: must be a text"),
        ("rerank", {"query": "a", "texts": []}, 422, "validation", "texts: expected"),
        ("rerank", {"query": "a", "texts": ["b"]}, 404, "not_found", "model: no embedding model"),
        ("decode", {"ids": [5, 10**6]}, 413, "validation", "ids[1]: the vocabulary"),
        ("decode", {"ids": [5, [6]]}, 413, "validation", "ids: must be token ids"),
        ("decode", {"ids": [-1]}, 422, "validation", "ids[0]: expected"),
    ],
)  # fmt: skip
def test_bad_requests_have_the_statuses_of_tei(http, path, body, status, kind, message):
    answer = http.post(f"/{path}", body)
    assert (answer.status, answer.json["error_type"]) == (status, kind)
    assert answer.json["error"].startswith(message)


def test_a_model_without_the_head_of_a_route_is_a_failed_dependency(http):
    answer = http.post("/predict", {"inputs": "the"}, attendant_model="tiny-bert")
    assert (answer.status, answer.json["error_type"]) == (424, "backend")
