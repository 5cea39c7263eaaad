"""Imported models of late interaction behind a real server give the vectors of their originals."""

import json
import re
import shutil

import grpc
import numpy as np
import pytest
import torch
from attendant.v1.embedding_pb2 import (
    TEXT_ROLE_DOCUMENT,
    TEXT_ROLE_QUERY,
    VECTOR_UNIT_SPANS,
    VECTOR_UNIT_WORDS,
    EmbedRequest,
    EmbedTokensRequest,
    Span,
    TextSpans,
)
from attendant.v1.model_pb2 import GetModelRequest
from attendant.v1.text_pb2 import TRUNCATION_RIGHT
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_server.bundles import read_bundle
from safetensors.torch import load_file

from tests.support.bundles import one_thread
from tests.support.checkpoints import WIDTH, change_json
from tests.support.colbert_checkpoints import (
    DIMENSION,
    MARKERS,
    PYLATE_MARKERS,
    write_colbert,
    write_pylate,
)
from tests.support.models import embedding_model
from tests.support.multi_vector_folders import EXPANSION, write_multi_vector
from tests.support.serving import running_server

transformers = pytest.importorskip("transformers")

TEXTS = ["The train leaves at nine.", "No.", "She opened the window at night, as always."]
NAMES = {
    "colbert": MARKERS,
    "colbert-attending": MARKERS,
    "pylate-bert": PYLATE_MARKERS,
    "pylate-modernbert": PYLATE_MARKERS,
    "pylate-mpnet": PYLATE_MARKERS,
    "pylate-attending": PYLATE_MARKERS,
    "pylate-plain": PYLATE_MARKERS,
    "multi-vector": PYLATE_MARKERS,
}
"""The markers of each model."""
ATTENDING = "colbert-attending", "pylate-attending"
"""Models whose queries attend to the mask tokens after them."""
QUERY_LENGTH = 48
DENSE = [("1_Dense", "linear"), ("2_Dense", "linear")]
LAYERS = {"colbert": [("", "linear")], "pylate": DENSE, "multi": DENSE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("late")
    sources = [
        write_colbert(root / "colbert", doc_maxlen=60, query_maxlen=QUERY_LENGTH),
        write_colbert(
            root / "colbert-attending", query_maxlen=QUERY_LENGTH, attend_to_mask_tokens=True
        ),
        write_pylate(root / "pylate-bert", query_length=QUERY_LENGTH),
        write_pylate(root / "pylate-modernbert", "modernbert", query_length=QUERY_LENGTH),
        write_pylate(root / "pylate-mpnet", "mpnet", query_length=QUERY_LENGTH),
        write_pylate(
            *(root / "pylate-attending", "modernbert"),
            query_length=QUERY_LENGTH,
            attend_to_expansion_tokens=True,
        ),
        write_pylate(root / "pylate-plain", query_length=QUERY_LENGTH, do_query_expansion=False),
        write_multi_vector(
            root / "multi-vector", encoder={"query_expansion": EXPANSION | {"length": QUERY_LENGTH}}
        ),
    ]
    # The window reaches the last mask token from the first tokens of a query.
    change_json(root / "pylate-modernbert/config.json", local_attention=2 * QUERY_LENGTH)
    with one_thread():
        for source in sources:
            import_bundle(source, root / "bundles", ImportOptions())
    return root


@pytest.fixture(scope="module")
def server(folder, loop, settings):
    with running_server(loop, settings(bundles=folder / "bundles")) as running:
        yield running


@torch.inference_mode()
def original(folder, name, text, marker, expands=False):
    """The vectors of a text by the original's encoder, with the marker's id put after [CLS].

    If it expands, mask tokens follow up to `QUERY_LENGTH`.
    """
    source = folder / name
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModel.from_pretrained(source).eval()
    ids = tokenizer(text)["input_ids"]
    ids.insert(1, tokenizer.convert_tokens_to_ids(marker))
    num_attended = len(ids)
    if expands:
        ids += [tokenizer.mask_token_id] * (QUERY_LENGTH - len(ids))
    if name in ATTENDING:
        num_attended = len(ids)
    mask = (torch.arange(len(ids)) < num_attended).long()
    x = model(torch.tensor([ids]), attention_mask=mask[None]).last_hidden_state[0]
    for path, layer in LAYERS[name.partition("-")[0]]:
        weights = load_file(source / path / "model.safetensors")
        bias = weights.get(f"{layer}.bias")
        x = torch.nn.functional.linear(x, weights[f"{layer}.weight"], bias)
    return ids, torch.nn.functional.normalize(x, dim=-1).numpy()


def embed_tokens(server, texts, **fields):
    return server.embedding.EmbedTokens(EmbedTokensRequest(texts=texts, **fields)).results


def parts_of_text(result):
    return [token for token in result.tokens if not token.special]


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


@pytest.mark.parametrize("name", NAMES)
def test_queries_are_expanded_as_by_the_original_also_beside_documents(server, folder, name):
    model = server.models.GetModel(GetModelRequest(model=name))
    expands = name != "pylate-plain"
    assert (model.max_query_tokens, model.expands_queries) == (QUERY_LENGTH, expands)
    pending = server.embedding.EmbedTokens.future(
        EmbedTokensRequest(texts=TEXTS * 4, model=name, role=TEXT_ROLE_DOCUMENT)
    )
    results = embed_tokens(server, TEXTS, model=name, role=TEXT_ROLE_QUERY)
    assert len(pending.result().results) == 4 * len(TEXTS)
    for text, result in zip(TEXTS, results, strict=True):
        ids, expected = original(folder, name, text, NAMES[name]["query"], expands)
        assert [token.id for token in result.tokens] == ids
        assert array(result.embeddings) == pytest.approx(expected, abs=2e-5)
        (plain,) = embed_tokens(server, [text], model=name)
        assert parts_of_text(result) == parts_of_text(plain)


@pytest.mark.parametrize("name", NAMES)
def test_documents_have_no_vectors_of_punctuation(server, folder, name):
    results = embed_tokens(server, TEXTS, model=name, role=TEXT_ROLE_DOCUMENT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / name)
    skipped = tokenizer.convert_tokens_to_ids([".", ","])
    for text, result in zip(TEXTS, results, strict=True):
        ids, expected = original(folder, name, text, NAMES[name]["document"])
        kept = [row for row, token_id in enumerate(ids) if token_id not in skipped]
        assert len(kept) < len(ids)
        assert [token.id for token in result.tokens] == [ids[row] for row in kept]
        assert array(result.embeddings) == pytest.approx(expected[kept], abs=2e-5)


def test_a_query_that_is_too_long_is_refused_or_truncated_without_expansion(server, folder):
    text = TEXTS[2] * 8
    (refused,) = embed_tokens(server, [text], model="colbert", role=TEXT_ROLE_QUERY)
    assert refused.error.message.startswith(f"texts[0]: at most {QUERY_LENGTH} tokens")
    (cut,) = embed_tokens(
        *(server, [text]), model="colbert", role=TEXT_ROLE_QUERY, truncation=TRUNCATION_RIGHT
    )
    assert (len(cut.tokens), cut.truncation.num_kept_tokens) == (QUERY_LENGTH, QUERY_LENGTH)
    assert cut.tokens[1].text == MARKERS["query"]
    assert "[MASK]" not in [token.text for token in cut.tokens]


def test_a_marker_alone_is_no_text(server):
    (empty,) = embed_tokens(server, [" "], model="colbert", role=TEXT_ROLE_QUERY)
    assert empty.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_an_unknown_role_is_named(server):
    with pytest.raises(grpc.RpcError, match="role: has no value 3") as caught:
        embed_tokens(server, TEXTS, model="colbert", role=3)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_layers_of_an_expanded_query_are_those_of_its_tokens(server):
    (result,) = embed_tokens(
        server, TEXTS[:1], model="colbert", role=TEXT_ROLE_QUERY, layers=[0, -1]
    )
    assert list(result.embeddings.shape) == [2, QUERY_LENGTH, WIDTH]


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
        query = client.embed_tokens(TEXTS[0], model="colbert", role="query")
        assert len(query.embeddings) == len(query.tokens) == QUERY_LENGTH
        assert query.embeddings[: len(found)] == pytest.approx(found, abs=1e-6)
        with pytest.raises(ValueError, match="role must be one of"):
            client.embed_tokens(TEXTS[0], model="colbert", role="passage")  # type: ignore[call-overload]


@pytest.mark.parametrize("role", [TEXT_ROLE_QUERY, TEXT_ROLE_DOCUMENT])
def test_words_of_texts_with_a_role_are_means_without_marker_and_skipped_tokens(server, role):
    (tokens,) = embed_tokens(server, TEXTS[2:], model="colbert", role=role)
    (words,) = embed_tokens(server, TEXTS[2:], model="colbert", role=role, unit=VECTOR_UNIT_WORDS)
    found = [TEXTS[2][span.start : span.end] for span in words.spans]
    every = re.findall(r"\w+|[^\w\s]", TEXTS[2])
    is_query = role == TEXT_ROLE_QUERY
    assert found == [word for word in every if is_query or word not in ",."]
    vectors = array(tokens.embeddings)
    for span, mean in zip(words.spans, array(words.embeddings), strict=True):
        rows = [
            row
            for row, token in enumerate(tokens.tokens)
            if not token.special and token.start < span.end and span.start < token.end
        ]
        assert len(rows) == span.num_tokens
        assert mean == pytest.approx(vectors[rows].mean(0), abs=1e-5)


def test_a_span_of_skipped_tokens_alone_has_no_vector(server):
    end = len(TEXTS[0])
    spans = [TextSpans(spans=[Span(start=end - 1, end=end)])]
    (found,) = embed_tokens(
        *(server, TEXTS[:1]),
        model="colbert",
        role=TEXT_ROLE_DOCUMENT,
        unit=VECTOR_UNIT_SPANS,
        spans=spans,
    )
    assert found.error.message == "spans[0].spans[0]: has no token"
