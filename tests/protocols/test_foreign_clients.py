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

    def run(script: str) -> Any:
        command = [python, str(CLIENTS / script), f"127.0.0.1:{server.server.port}", *TEXTS]
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
