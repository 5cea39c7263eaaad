"""Folders of sentence-transformers behind a real server: prompts, poolings, dense layers."""

from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1 import embedding_pb2, text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle
from safetensors.numpy import load_file

from tests.support.bundles import one_thread
from tests.support.checkpoints import WIDTH, write_json, write_sentence_transformer
from tests.support.serving import running_server

TEXTS = ["The train leaves at nine.", "Où est la gare ?", "No.", "Please close the window."]
PROMPT = "query: which one? "
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
POOLINGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
    "weighted": "pooling_mode_weightedmean_tokens",
    "root": "pooling_mode_mean_sqrt_len_tokens",
}
NUMBERS: dict[str, Any] = dict(zip(POOLINGS, range(1, 7), strict=True))
"""The values of the contract."""
PROMPTED = "prompted"
DENSE: dict[str, list[dict[str, Any]]] = {
    "dense": [{"out_features": 48, "activation_function": TANH}],
    "denses": [
        {"out_features": 64, "bias": False, "activation_function": IDENTITY},
        {"out_features": 5},
    ],
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    for name, dense in DENSE.items():
        config = {POOLINGS["mean"]: True}
        write_sentence_transformer(root / name, config, dense=dense, normalizes=name == "denses")
    for includes in (True, False):
        for name, field in POOLINGS.items():
            config = {field: True, "include_prompt": includes}
            folder = root / f"{PROMPTED}-{name}{'' if includes else '-without'}"
            write_sentence_transformer(folder, config)
            write_json(
                folder / "config_sentence_transformers.json",
                {"prompts": {"query": PROMPT, "document": ""}, "default_prompt_name": "query"},
            )
    return root


@pytest.fixture(scope="module")
def server(checkpoints, tmp_path_factory, loop, settings):
    bundles = tmp_path_factory.mktemp("bundles")
    with one_thread():
        for checkpoint in sorted(checkpoints.iterdir()):
            import_bundle(checkpoint, bundles, ImportOptions())
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def names_of(checkpoints):
    return sorted(folder.name for folder in checkpoints.iterdir())


def as_array(tensor: Any) -> np.ndarray:
    assert tensor.dtype == embedding_pb2.DATA_TYPE_FLOAT32
    return np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape))


def hidden_states(server, model, texts):
    request = EmbedTokensRequest(model=model, texts=texts)
    return [as_array(each.embeddings) for each in server.embedding.EmbedTokens(request).results]


def pooled(hidden: np.ndarray, pooling: str, num_prompt_tokens: int) -> np.ndarray:
    kept = hidden[num_prompt_tokens:]
    weights = np.arange(num_prompt_tokens, len(hidden))[:, None] + 1
    vectors: dict[str, np.ndarray] = {
        "mean": kept.mean(0),
        "cls": kept[0],
        "max": kept.max(0),
        "last": kept[-1],
        "weighted": (kept * weights).sum(0) / weights.sum(),
        "root": kept.sum(0) / np.sqrt(len(kept)),
    }
    return vectors[pooling]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("suffix", ["", "-without"])
def test_the_default_prompt_is_read_before_every_text(pooling, suffix, server):
    model = f"{PROMPTED}-{pooling}{suffix}"
    (prompt,) = hidden_states(server, model, [PROMPT])
    skipped = len(prompt) - 1 if suffix else 0
    prompted = hidden_states(server, model, [PROMPT + text for text in TEXTS])
    expected = np.stack([pooled(hidden, pooling, skipped) for hidden in prompted])

    answer = server.embedding.Embed(EmbedRequest(model=model, texts=TEXTS))

    np.testing.assert_allclose(as_array(answer.embeddings), expected, atol=2e-5)
    assert [result.num_tokens for result in answer.results] == [len(each) for each in prompted]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_imported_models_offer_all_poolings(pooling, server):
    model = f"{PROMPTED}-mean"
    prompted = hidden_states(server, model, [PROMPT + text for text in TEXTS])
    request = EmbedRequest(model=model, texts=TEXTS, pooling=NUMBERS[pooling])
    found = as_array(server.embedding.Embed(request).embeddings)
    expected = np.stack([pooled(hidden, pooling, 0) for hidden in prompted])
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name", DENSE)
def test_vectors_pass_the_dense_layers(name, server, checkpoints):
    expected = np.stack([hidden.mean(0) for hidden in hidden_states(server, name, TEXTS)])
    for number, config in enumerate(DENSE[name], start=2):
        weights = load_file(checkpoints / name / f"{number}_Dense" / "model.safetensors")
        expected = expected @ weights["linear.weight"].T + weights.get("linear.bias", 0)
        if config.get("activation_function", TANH) == TANH:
            expected = np.tanh(expected)
    if name == "denses":
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)

    found = as_array(server.embedding.Embed(EmbedRequest(model=name, texts=TEXTS)).embeddings)

    assert found.shape == (len(TEXTS), DENSE[name][-1]["out_features"])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_description_has_prompts_poolings_and_the_dimension_of_texts(server):
    model = server.models.GetModel(GetModelRequest(model=f"{PROMPTED}-last"))
    assert dict(model.prompts) == {"query": PROMPT, "document": ""}
    assert model.default_prompt == "query"
    assert list(model.additional_poolings) == [4, 5, 6]
    assert model.default_pooling == embedding_pb2.POOLING_LAST
    assert not model.embedding_sizes.HasField("text_dimension")
    model = server.models.GetModel(GetModelRequest(model="dense"))
    assert (model.embedding_sizes.d_model, model.embedding_sizes.text_dimension) == (WIDTH, 48)
    assert (dict(model.prompts), model.default_prompt) == ({}, "")


def test_a_prompt_alone_is_no_text(server):
    request = EmbedRequest(model=f"{PROMPTED}-mean", texts=["", "No.", " \t"])
    codes = [each.error.code for each in server.embedding.Embed(request).results]
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT.value[0], 0, codes[0]]


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
def test_truncation_keeps_the_prompt(side, server):
    model, words = f"{PROMPTED}-weighted", "one two " * 60
    truncation = getattr(text_pb2, f"TRUNCATION_{side}")
    request = EmbedRequest(model=model, texts=[words], truncation=truncation)
    answer = server.embedding.Embed(request)
    assert answer.results[0].num_tokens == 64
    tokens = EmbedTokensRequest(model=model, texts=[PROMPT + words], truncation=truncation)
    (result,) = server.embedding.EmbedTokens(tokens).results
    has_prompt = result.tokens[1].start == 0
    same = pooled(as_array(result.embeddings), "weighted", 0)
    is_same = np.abs(as_array(answer.embeddings)[0] - same).max() < 2e-5
    assert (has_prompt, is_same) == ((True, True) if side == "RIGHT" else (False, False))


def test_a_pooling_that_a_model_lacks_is_refused(running):
    request = EmbedRequest(texts=["No."], pooling=embedding_pb2.POOLING_LAST)
    with pytest.raises(grpc.RpcError) as caught:
        running.embedding.Embed(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "pooling: is LAST, but the model offers MEAN, CLS, MAX" in str(caught.value.details())


def test_vectors_are_those_of_sentence_transformers(server, checkpoints):
    package = pytest.importorskip("sentence_transformers")
    for name in names_of(checkpoints):
        original = package.SentenceTransformer(str(checkpoints / name), device="cpu")
        expected = original.encode(TEXTS)
        request = EmbedRequest(model=name, texts=TEXTS)
        found = as_array(server.embedding.Embed(request).embeddings)
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=name)
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((found * expected).sum(1) / norms).min() >= 0.99999, name
