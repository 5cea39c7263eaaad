"""Clients of other servers, as their packages are, work with a real server.

They run in processes of their own: their generated code defines the messages of the server again.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.language_model_pb2 import GenerateOptions, GenerateRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest

from tests.support.serving import Running

pytestmark = pytest.mark.foreign

CLIENTS = Path(__file__).parent / "clients"
TEXTS = ["The dog sees the king. The old cat.", "The old cat.", "The old king"]


@pytest.fixture(scope="module")
def server(loop, settings):
    from tests.support.serving import running_server

    with running_server(loop, settings(model_control="on", try_bundles="never")) as running:
        yield running


@pytest.fixture(scope="module")
def found(server):
    """Runs a script with the Python that has the clients; returns what it prints."""
    python = os.environ.get("FOREIGN_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("NOT CHECKED: clients of other protocols, since FOREIGN_PYTHON names none")

    def run(script: str, port: int | None = None) -> Any:
        address = f"127.0.0.1:{port or server.server.port}"
        command = [python, str(CLIENTS / script), address, *TEXTS]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


def best(server: Running, **options: Any) -> list[list[str]]:
    request = TranslateRequest(model="tiny-en-de", texts=TEXTS, options=TranslateOptions(**options))
    translations = server.translation.Translate(request).translations
    return [[hypothesis.text for hypothesis in each.hypotheses] for each in translations]


def test_tritons_blocking_client_works(server, found):
    answers = found("triton_blocking.py")
    translations = [text for [text] in best(server)]
    assert answers["description"] == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "unknown_ready": False,
        "server": "attendant",
        "inputs": ["TEXT"],
        "max_batch_size": 256,
        "index": ["tiny-bert", "tiny-classifier", "tiny-en-de", "tiny-lm", "tiny-splade"],
    }
    whole = answers["whole"]
    assert (whole["id"], whole["TEXT"]) == ("7", translations)
    assert whole["hypotheses"] == best(server, beam_size=4, num_hypotheses=2, length_penalty=0.5)
    own = server.embedding.Embed(EmbedRequest(model="tiny-bert", texts=TEXTS)).embeddings
    vectors = np.frombuffer(own.data, "<f4").reshape(own.shape)
    np.testing.assert_array_equal(np.float32(whole["EMBEDDING"]), vectors)
    assert answers["later"] == translations
    assert "".join(answers["stream"]["pieces"]) == translations[0]
    assert len(answers["stream"]["pieces"]) > 1
    [error] = answers["stream"]["errors"]
    assert error.startswith("TEXT[0]: is empty")
    assert answers["failures"] == {
        "unknown model": "NOT_FOUND",
        "shared memory": "UNIMPLEMENTED",
        "register": "UNIMPLEMENTED",
        "classes": "UNIMPLEMENTED",
        "sequence": "UNIMPLEMENTED",
        "no time": "DEADLINE_EXCEEDED",
    }
    assert (answers["unloaded"], answers["loaded"]) == (False, True)
    assert answers["num_texts"] == len(TEXTS)


def test_tritons_client_for_asyncio_works(server, found):
    answers = found("triton_asyncio.py")
    translations = [text for [text] in best(server)]
    assert answers["ready"]
    assert answers["TEXT"] == answers["each"] == translations
    assert "".join(answers["pieces"]) == translations[0]
    assert len(answers["pieces"]) > 1


def test_the_stub_of_kserves_protocol_works(server, found):
    answers = found("open_inference_stub.py")
    assert answers["live"]
    assert answers["ready"]
    assert answers["inputs"] == ["TEXT"]
    assert answers["TEXT"] == [text for [text] in best(server, beam_size=4)]
    assert answers["num_scores"] == len(TEXTS)


@pytest.fixture(scope="module")
def vectors(server):
    request = EmbedRequest(model="tiny-bert", texts=TEXTS, normalize=True)
    own = server.embedding.Embed(request).embeddings
    return np.frombuffer(own.data, "<f4").reshape(own.shape)


@pytest.fixture(scope="module")
def continuation(server):
    options = GenerateOptions(max_output_tokens=12)
    request = GenerateRequest(prompts=["the old"], options=options)
    return server.language.Generate(request).generations[0].hypotheses[0].text


def test_openais_clients_work(server, found, vectors, continuation):
    answers = found("openai_client.py", server.server.http_port)
    names = ["tiny-bert", "tiny-classifier", "tiny-en-de", "tiny-lm", "tiny-splade"]
    assert answers["models"] == names
    assert answers["model"] == "tiny-bert"
    np.testing.assert_array_equal(np.float32(answers["vectors"]), vectors)
    np.testing.assert_array_equal(np.float32(answers["plain"]), vectors)
    np.testing.assert_allclose(answers["asyncio"]["vectors"], vectors, atol=1e-2)
    assert answers["num_tokens"] > 0
    assert (answers["whole"], answers["reason"]) == (continuation, "length")
    for pieces in (answers["pieces"], answers["asyncio"]["pieces"]):
        assert "".join(pieces) == continuation
        assert len(pieces) > 1
    assert answers["failures"] == {
        "unknown model": ["NotFoundError", "not_found", None],
        "wrong kind": ["BadRequestError", "invalid_argument", "model"],
    }


def test_embedding_classes_of_langchain_haystack_and_hugging_face_work(
    server, found, vectors, continuation
):
    answers = found("embedders.py", server.server.http_port)
    np.testing.assert_array_equal(np.float32(answers["langchain"]), vectors)
    for name in ("langchain one", "haystack"):
        np.testing.assert_allclose(answers[name], vectors[0], atol=1e-2)
    np.testing.assert_allclose(answers["hugging face"], vectors[:1], atol=1e-2)
    assert np.linalg.norm(answers["normalized"]) > 2
    assert answers["generated"] == "".join(answers["streamed"]) == continuation


def test_libretranslates_client_works(server, found):
    answers = found("libretranslate.py", server.server.http_port)
    assert answers["translations"] == [text for [text] in best(server)]
    assert answers["languages"] == [{"code": "en", "name": "en", "targets": ["de"]}]
    assert answers["detected"][0]["language"] == "en"
