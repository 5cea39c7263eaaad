"""OpenAI's protocol over HTTP beside the own protocol of a real server."""

import base64
import json

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.language_model_pb2 import GenerateOptions, GenerateRequest

TEXTS = ["The dog sees the king.", "The old cat.", "The old king"]
PROMPT = "the old"


def numbers(response):
    tensor = response.embeddings
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@pytest.fixture(scope="module")
def own(running):
    """The vectors and the number of tokens of the texts."""
    return running.embedding.Embed(EmbedRequest(model="tiny-bert", texts=TEXTS, normalize=True))


@pytest.fixture(scope="module")
def greedy(running):
    """The own answer for the prompt."""
    options = GenerateOptions(max_output_tokens=12, return_tokens=True)
    return running.language.Generate(GenerateRequest(prompts=[PROMPT], options=options))


def completion(http, **fields):
    request = {"prompt": PROMPT, "temperature": 0, "max_tokens": 12} | fields
    return http.post("/v1/completions", request)


def test_models_have_the_names_that_requests_give(http):
    answer = http.get("/v1/models").json
    assert [model["id"] for model in answer["data"]] == [
        *("tiny-bert", "tiny-classifier", "tiny-en-de", "tiny-lm", "tiny-splade")
    ]
    assert http.get("/v1/models/tiny-bert").json in answer["data"]
    assert http.get("/v1/models/tiny-bert/1").json in answer["data"]
    assert http.get("/v1/models/none").status == 404


def test_vectors_are_those_of_embed_as_numbers_and_as_base64(http, own):
    for texts in (TEXTS, TEXTS[0]):
        request = {"input": texts, "model": "tiny-bert/1"}
        answer = http.post("/v1/embeddings", request).json
        found = [np.float32(each["embedding"]) for each in answer["data"]]
        np.testing.assert_allclose(found, numbers(own)[: len(found)], atol=1e-2)
        assert [each["index"] for each in answer["data"]] == list(range(len(found)))
        coded = http.post("/v1/embeddings", request | {"encoding_format": "base64"}).json["data"]
        plain = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in coded]
        np.testing.assert_array_equal(plain, found)
    assert answer["model"] == "tiny-bert/1"
    answer = http.post("/v1/embeddings", {"input": TEXTS})
    total = own.token_counts.num_input_tokens
    assert answer.json["usage"] == {"prompt_tokens": total, "total_tokens": total}


def test_a_completion_with_temperature_0_is_that_of_generate(http, greedy):
    answer = completion(http, logprobs=0, echo=True).json
    [choice] = answer["choices"]
    [own] = greedy.generations[0].hypotheses
    assert choice["text"] == PROMPT + own.text
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == [token.text for token in own.tokens]
    found = choice["logprobs"]["token_logprobs"]
    np.testing.assert_allclose(found, [token.log_probability for token in own.tokens], atol=1e-4)
    counts = greedy.token_counts
    assert answer["usage"] == {
        "prompt_tokens": counts.num_input_tokens,
        "completion_tokens": counts.num_output_tokens,
        "total_tokens": counts.num_input_tokens + counts.num_output_tokens,
    }


def test_samples_depend_on_their_seed_and_come_prompt_after_prompt(http):
    request = {"prompt": [PROMPT, "a king"], "n": 3, "temperature": 1, "seed": 7}
    first, second = (completion(http, **request).json["choices"] for _ in range(2))
    assert first == second
    assert [choice["index"] for choice in first] == list(range(6))
    assert len({choice["text"] for choice in first}) > 3


def test_a_stream_adds_up_to_the_whole_and_ends_with_usage(http):
    whole = completion(http, seed=3, temperature=1, stop=["zzz"]).json
    answer = completion(
        http, seed=3, temperature=1, stream=True, stream_options={"include_usage": True}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = answer.events
    assert last == "[DONE]"
    *pieces, usage = map(json.loads, events)
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole["choices"][0]["text"]
    reasons = [piece["choices"][0]["finish_reason"] for piece in pieces]
    assert reasons == [*[None] * (len(pieces) - 1), "length"]
    assert len(pieces) > 1
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "problem"),
    [
        ("embeddings", b"{", 400, "body", "input data was truncated"),
        ("embeddings", b"[" * 100_000, 400, "body", ""),
        ("embeddings", b'{"input": "\xff"}', 400, "body", ""),
        ("embeddings", [], 400, "body", "expected object, got array"),
        ("embeddings", {}, 400, "body", "object missing required field input"),
        ("embeddings", {"input": []}, 400, "input", "expected array of length >= 1"),
        ("embeddings", {"input": ["a", ""]}, 400, "input[1]", "expected str of length >= 1"),
        ("embeddings", {"input": [1, 2]}, 400, "input", "must be a text or a list of texts"),
        ("completions", {"prompt": "a", "temperature": 1e-320}, 400, "temperature", "must be more"),
        ("completions", {"prompt": "a", "stream_options": {"x": 1}}, 400, "stream_options.x", "is"),
        ("embeddings", {"input": [[1, 2]]}, 400, "input", "must be a text or a list of texts"),
        ("embeddings", {"input": ["the"] * 257}, 400, "input", "at most 256, got 257"),
        ("embeddings", {"input": ["the", "!?"]}, 400, "input[1]", "has nothing that"),
        ("embeddings", {"input": " ".join(TEXTS * 50)}, 400, "input", "at most 64 tokens"),
        ("embeddings", {"input": "a", "dimensions": 33}, 400, "dimensions", "must be between"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, 400, "encoding_format", "has an"),
        ("embeddings", {"input": "a", "pooling": "cls"}, 400, "pooling", "is unknown here"),
        ("embeddings", {"input": "a", "model": "none"}, 404, None, "no such model"),
        ("embeddings", {"input": "a", "model": "tiny-lm"}, 400, "model", "tiny-lm/1 is no"),
        ("completions", {"prompt": [1]}, 400, "prompt", "must be a text or a list of texts"),
        ("completions", {"prompt": "a", "max_tokens": 64}, 400, "max_tokens", "must be between"),
        ("completions", {"prompt": "a", "logprobs": 2}, 400, "logprobs", "expected int <= 0"),
        ("completions", {"prompt": "a", "best_of": 2}, 400, "best_of", "must be n, which is 1"),
        ("completions", {"prompt": "a", "temperature": 3}, 400, "temperature", "expected float"),
        ("completions", {"prompt": "a", "n": 9}, 400, "n", "must be between 1 and 8"),
        ("completions", {"prompt": "a", "presence_penalty": 1}, 400, "presence_penalty", ""),
        ("completions", {"prompt": "a", "logit_bias": {"5": 1}}, 400, "logit_bias", ""),
        ("completions", {"prompt": ["a", "b"], "stream": True}, 400, "prompt", "must be one text"),
        ("completions", {"prompt": "a", "n": 2, "stream": True}, 400, "n", "must be 1 with stream"),
        ("completions", {"prompt": "a", "stream": True, "max_tokens": 99}, 400, "max_tokens", ""),
        ("completions", {"prompt": "a", "stop": ["", "b"]}, 400, "stop[0]", "must have between"),
    ],
)  # fmt: skip
def test_bad_requests_name_the_field_and_the_limit(http, path, body, status, field, problem):
    answer = http.post(f"/v1/{path}", body)
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (status, field)
    assert error["message"].partition(": ")[2].startswith(problem)
    assert error["type"] == "invalid_request_error"
