"""Dimensions and prompts of Embed, with imported folders of sentence-transformers."""

import re
from typing import Any, cast

import grpc
import numpy as np
import pytest
from attendant.v1 import text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest
from attendant.v1.model_pb2 import GetModelRequest
from attendant_client import Client
from attendant_export.bundle.importing import ImportOptions, import_bundle
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.support.bundles import one_thread
from tests.support.checkpoints import WIDTH, write_json, write_sentence_transformer
from tests.support.serving import failure_of, running_server

TEXTS = ["The train leaves at nine.", "Où est la gare ?", "No."]
PROMPTS = {"query": "query: which one? ", "document": "", "title": "title: "}
MEAN = {"pooling_mode_mean_tokens": True}
TRAINED = (4, 8)


@pytest.fixture(scope="module")
def server(tmp_path_factory, loop, settings, translation_bundle):
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    bundles = tmp_path_factory.mktemp("bundles")
    for name, includes, more in (
        ("with", True, {}),
        ("without", False, {}),
        ("short", True, {"truncate_dim": 8}),
    ):
        folder = checkpoints / name
        write_sentence_transformer(folder, {**MEAN, "include_prompt": includes}, normalizes=True)
        write_json(
            folder / "config_sentence_transformers.json",
            {"prompts": PROMPTS, "default_prompt_name": "query"} | more,
        )
    with one_thread():
        for folder in checkpoints.iterdir():
            import_bundle(folder, bundles, ImportOptions(trained_dimensions=TRAINED))
    name = translation_bundle.parent.name  # its calls hold the engine
    (bundles / name).symlink_to(translation_bundle.parent)
    with running_server(loop, settings(bundles=bundles)) as running:
        yield running


def as_array(tensor: Any) -> np.ndarray:
    return np.frombuffer(tensor.data, "<f4").reshape(list(tensor.shape))


def embed(server, model="with", texts=TEXTS, **options):
    request = EmbedRequest(model=model, texts=texts, **options)
    return as_array(server.embedding.Embed(request).embeddings)


def hidden_states(server, model, texts):
    request = EmbedTokensRequest(model=model, texts=texts)
    return [as_array(each.embeddings) for each in server.embedding.EmbedTokens(request).results]


def refusal(server, **options):
    request = EmbedRequest(model="with", texts=TEXTS, **options)
    failure = failure_of(server.embedding.Embed, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    return failure.details()


@examples(max_examples=10, deadline=None)
@given(dimensions=st.integers(1, WIDTH))
def test_vectors_are_cut_and_then_normalized(server, dimensions: int):
    whole = embed(server, normalize=False)
    cut = embed(server, dimensions=dimensions, force_dimensions=True, normalize=False)
    np.testing.assert_allclose(cut, whole[:, :dimensions], atol=1e-6)
    normalized = embed(server, dimensions=dimensions, force_dimensions=True)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(normalized, cut / lengths, atol=1e-5)


@pytest.mark.parametrize("dimensions", [*TRAINED, WIDTH])
def test_dimensions_for_which_the_model_was_trained_need_no_force(server, dimensions: int):
    assert embed(server, dimensions=dimensions).shape == (len(TEXTS), dimensions)


def test_other_dimensions_are_refused_by_a_list_of_the_trained_ones(server):
    assert refusal(server, dimensions=5) == (
        f"dimensions: the model was trained for 4, 8, {WIDTH} only; force_dimensions allows others"
    )


@pytest.mark.parametrize("dimensions", [0, WIDTH + 1, 2**32 - 1])
def test_dimensions_that_a_vector_does_not_have_are_refused_even_with_force(server, dimensions):
    problem = refusal(server, dimensions=dimensions, force_dimensions=True)
    assert problem == f"dimensions: must be between 1 and {WIDTH}, got {dimensions}"


def test_a_model_may_have_other_dimensions_by_default(server):
    np.testing.assert_array_equal(embed(server, "short"), embed(server, "short", dimensions=8))
    assert embed(server, "short", dimensions=WIDTH).shape == (len(TEXTS), WIDTH)
    with Client(f"127.0.0.1:{server.server.port}") as client:
        assert client.model("short").default_dimensions == 8
        assert client.model("with").default_dimensions is None


def test_the_trained_dimensions_are_part_of_the_description(server):
    response = server.models.GetModel(GetModelRequest(model="with"))
    assert tuple(response.trained_dimensions) == TRAINED
    with Client(f"127.0.0.1:{server.server.port}") as client:
        assert client.model("with").trained_dimensions == TRAINED


@pytest.mark.parametrize("model", ["with", "without"])
@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, PROMPTS["query"]),
        ({"prompt_name": "query"}, PROMPTS["query"]),
        ({"prompt_name": "title"}, PROMPTS["title"]),
        ({"prompt_name": "document"}, ""),
        ({"prompt_name": ""}, ""),
        ({"prompt": ""}, ""),
        ({"prompt": "a longer prompt, of the caller: "}, "a longer prompt, of the caller: "),
        ({"prompt": PROMPTS["query"]}, PROMPTS["query"]),
    ],
)
def test_the_model_reads_the_chosen_prompt_before_every_text(server, model, options, prompt):
    num_left_out = 0
    if model == "without" and prompt:
        (alone,) = hidden_states(server, model, [prompt])
        num_left_out = len(alone) - 1  # all but the token at the end
    hidden = hidden_states(server, model, [prompt + text for text in TEXTS])
    expected = np.stack([each[num_left_out:].mean(0) for each in hidden])
    np.testing.assert_allclose(
        embed(server, model, normalize=False, **options), expected, atol=2e-5
    )


def test_calls_with_different_prompts_share_a_batch(server):
    prompts = ["title: ", "", "query: which one? ", "a longer prompt, of the caller: "]
    alone = [embed(server, "without", prompt=prompt) for prompt in prompts]
    with server.held_engine():
        calls = [
            server.embedding.Embed.future(EmbedRequest(model="without", texts=TEXTS, prompt=prompt))
            for prompt in prompts
        ]
        server.wait_for_queued(len(prompts) * len(TEXTS), model="without/1")
    for call, expected in zip(calls, alone, strict=True):
        np.testing.assert_allclose(as_array(call.result().embeddings), expected, atol=1e-5)


def test_an_unknown_prompt_is_refused_by_a_list_of_the_names(server):
    problem = refusal(server, prompt_name="Xylophonwurst")
    assert problem == (
        "prompt_name: is unknown; the prompts of the model are: document, query, title"
    )


def test_a_name_and_a_text_of_a_prompt_are_refused_together(server):
    problem = refusal(server, prompt_name="query", prompt="query: ")
    assert problem == "prompt: must be left out if prompt_name is given"


def test_a_prompt_has_as_many_characters_as_a_text_at_most(server):
    limits = server.models.GetModel(GetModelRequest(model="with")).request_limits
    problem = refusal(server, prompt="a" * (limits.max_text_characters + 1))
    assert problem.startswith(f"prompt: at most {limits.max_text_characters} characters, got ")


def test_a_prompt_that_leaves_no_room_is_the_fault_of_each_text(server):
    request = EmbedRequest(model="with", texts=TEXTS, prompt="one two three " * 200)
    request.truncation = text_pb2.TRUNCATION_RIGHT
    results = server.embedding.Embed(request).results
    for i, result in enumerate(results):
        assert re.fullmatch(rf"texts\[{i}\]: at most 64 tokens, got \d+", result.error.message)


def test_the_clients_pass_all_options_on(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        found = client.embed(
            TEXTS, model="with", dimensions=3, force_dimensions=True, prompt_name="title"
        )
        own = client.embed(TEXTS, model="with", prompt="title: ", dimensions=8)
    expected = embed(server, prompt_name="title", dimensions=3, force_dimensions=True)
    np.testing.assert_array_equal(found.vectors, expected)
    assert own.vectors.shape == (len(TEXTS), 8)


DATA_TYPES: dict[str, Any] = {"float16": np.float16, "int8": np.int8, "uint8": np.uint8}


@pytest.mark.parametrize("name", DATA_TYPES)
def test_clients_get_vectors_in_the_data_type_that_they_ask_for(server, name):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        expected = client.embed(TEXTS, model="with").vectors
        found = client.embed([*TEXTS, ""], model="with", data_type=name)
    assert found.vectors.dtype == DATA_TYPES[name]
    assert len(found.scales) == (0 if name == "float16" else 4)
    values = found.vectors[:-1].astype(np.float32) - (128 if name == "uint8" else 0)
    if name != "float16":
        values *= found.scales[:-1, None]
    np.testing.assert_allclose(values, expected, atol=np.abs(expected).max() / 250)
    assert found[-1].error is not None


def test_bits_are_the_signs_of_the_values(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        expected = client.embed(TEXTS, model="with").vectors > 0
        found = client.embed(TEXTS, model="with", data_type="binary").vectors
    assert found.dtype == np.uint8
    assert found.shape == (len(TEXTS), WIDTH // 8)
    np.testing.assert_array_equal(np.unpackbits(found, axis=1), expected)


def test_vectors_of_tokens_have_data_types_too(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        expected = client.embed_tokens(TEXTS[0], [0, -1], model="with").embeddings
        found = client.embed_tokens(TEXTS[0], [0, -1], model="with", data_type="int8")
    assert found.scales is not None
    assert found.scales.shape == found.embeddings.shape[:-1]
    values = found.embeddings.astype(np.float32) * found.scales[..., None]
    np.testing.assert_allclose(values, expected, atol=np.abs(expected).max() / 250)


def test_an_unknown_data_type_is_refused(server):
    problem = refusal(server, data_type=cast("Any", 99))
    assert problem == "data_type: has no value 99"


LONG = "The train leaves at nine. Où est la gare ? No, it is late!\nPlease close the window."


@pytest.fixture
def client(server):
    with Client(f"127.0.0.1:{server.server.port}") as client:
        yield client


@pytest.mark.parametrize("model", ["with", "without"])
def test_each_sentence_has_the_vector_that_it_has_alone(client, model):
    first, failed, second = client.embed([LONG, " ", "No."], model=model, chunking="sentences")
    sentences = [LONG[chunk.start : chunk.end] for chunk in first.chunks]
    assert len(sentences) == 4
    alone = client.embed([*sentences, "No."], model=model)
    np.testing.assert_allclose(first.vector, alone.vectors[:4], atol=1e-5)
    np.testing.assert_allclose(second.vector, alone.vectors[4:], atol=1e-5)
    assert [chunk.num_tokens for chunk in first.chunks] == [each.num_tokens for each in alone[:4]]
    assert first.num_tokens == sum(each.num_tokens for each in alone[:4])
    assert failed.error is not None
    assert (failed.vector.shape, failed.chunks) == ((0, WIDTH), ())


def test_chunks_of_sentences_have_a_limit_of_tokens(client):
    whole = client.embed(LONG * 9, model="with", chunking="tokens")
    assert 1 < len(whole.chunks) < 36
    assert all(chunk.num_tokens <= 64 for chunk in whole.chunks)
    small = client.embed(LONG * 9, model="with", chunking="tokens", max_chunk_tokens=50)
    assert len(small.chunks) > len(whole.chunks)
    assert all(chunk.num_tokens <= 50 for chunk in small.chunks)
    parts = [(LONG * 9)[chunk.start : chunk.end] for chunk in small.chunks]
    alone = client.embed(parts, model="with")
    np.testing.assert_allclose(small.vector, alone.vectors, atol=1e-5)


@pytest.mark.parametrize("data_type", ["float32", "int8"])
def test_chunks_are_averaged_by_their_tokens_before_normalization(client, data_type):
    options: dict[str, Any] = {"model": "with", "chunking": "sentences"}
    chunks = client.embed(LONG, normalize=False, **options)
    weights = np.array([chunk.num_tokens for chunk in chunks.chunks], np.float64)
    average = weights @ chunks.vector / weights.sum()
    average /= np.linalg.norm(average)
    found = client.embed(["", LONG], average_chunks=True, data_type=data_type, **options)
    assert found.vectors.shape == (2, WIDTH)
    vector = found[1].vector * (found[1].scale or 1)
    np.testing.assert_allclose(vector, average, atol=1e-5 if data_type == "float32" else 0.01)
    assert found[1].chunks == chunks.chunks


def test_many_chunks_run_in_several_parts(client):
    texts = [f"{LONG} " * 40] * 3
    found = client.embed(texts, model="with", chunking="sentences", data_type="int8")
    assert [len(each.chunks) for each in found] == [160] * 3
    assert found.vectors.shape == (480, WIDTH)
    assert found.scales.shape == (480,)
    assert found[0].vector[:4].tolist() == found[2].vector[:4].tolist()


def test_a_call_without_readable_texts_has_no_chunks(client):
    found = client.embed(["", " "], model="with", chunking="sentences")
    assert found.vectors.shape == (0, WIDTH)
    assert len(found.errors) == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_chunk_tokens": 8}, "max_chunk_tokens: needs chunking"),
        ({"average_chunks": True}, "average_chunks: needs chunking"),
        ({"chunking": 2, "truncation": 2}, "truncation: is for texts without chunking only"),
        ({"chunking": 3, "max_chunk_tokens": 0}, "max_chunk_tokens: must be between 1 and 64"),
        ({"chunking": 3, "max_chunk_tokens": 65}, "max_chunk_tokens: must be between 1 and 64"),
        ({"chunking": 9}, "chunking: has no value 9"),
    ],
)
def test_bad_options_of_chunks_are_refused(server, options, problem):
    assert refusal(server, **options).startswith(problem)
