"""Calls a server with Triton's blocking client, as a stranger's program would; prints JSON.

Usage: triton_blocking.py ADDRESS TEXT...
"""

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def texts_input(texts: list[str], is_column: bool = False) -> Any:
    """An input of texts."""
    array = np.array(texts, dtype=np.object_)
    array = array[:, None] if is_column else array
    tensor = triton.InferInput("TEXT", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return tensor


def shown(array: Any) -> Any:
    """An output as JSON."""
    if array.dtype == np.object_:
        array = np.vectorize(bytes.decode)(array)
    return array.tolist()


def describe(client: Any) -> dict[str, Any]:
    """What the client reads before it sends anything, as perf_analyzer does."""
    metadata = client.get_model_metadata("tiny-bert", as_json=True)
    config = client.get_model_config("tiny-bert", as_json=True)["config"]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("tiny-bert", "1"),
        "unknown_ready": client.is_model_ready("none"),
        "server": client.get_server_metadata(as_json=True)["name"],
        "inputs": [each["name"] for each in metadata["inputs"]],
        "max_batch_size": config["max_batch_size"],
        "index": [each.name for each in client.get_model_repository_index().models],
    }


def infer(client: Any, texts: list[str]) -> dict[str, Any]:
    """Whole answers: by default, with options, and with all outputs of the metadata."""
    found = client.infer("tiny-en-de", [texts_input(texts)], request_id="7")
    options = {"beam_size": 4, "num_hypotheses": 2, "length_penalty": 0.5, "target_language": "de"}
    searched = client.infer("tiny-en-de", [texts_input(texts)], parameters=options)
    metadata = client.get_model_metadata("tiny-bert")
    outputs = [triton.InferRequestedOutput(each.name) for each in metadata.outputs]
    vectors = client.infer("tiny-bert", [texts_input(texts, is_column=True)], outputs=outputs)
    return {
        "id": found.get_response().id,
        "TEXT": shown(found.as_numpy("TEXT")),
        "SCORE": shown(found.as_numpy("SCORE")),
        "hypotheses": shown(searched.as_numpy("TEXT")),
        "EMBEDDING": shown(vectors.as_numpy("EMBEDDING")),
    }


def infer_later(client: Any, texts: list[str]) -> list[Any]:
    """The outputs of many calls at once, in the order of their texts."""
    done: queue.Queue[Any] = queue.Queue()
    for number, text in enumerate(texts):
        client.async_infer(
            "tiny-en-de",
            [texts_input([text])],
            lambda result, error, number=number: done.put((number, result, error)),
        )
    ended = sorted((done.get(timeout=60) for _ in texts), key=lambda each: each[0])
    assert not any(error for _, _, error in ended)
    return [shown(result.as_numpy("TEXT"))[0] for _, result, _ in ended]


def stream(client: Any, texts: list[str]) -> dict[str, Any]:
    """The pieces of a streamed translation, and the error of a bad request in the same stream."""
    responses: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: responses.put((result, error)))
    client.async_stream_infer("tiny-bert", [texts_input([""])])
    client.async_stream_infer(
        "tiny-en-de",
        [texts_input(texts[:1])],
        request_id="streamed",
        enable_empty_final_response=True,
        parameters={"stream": True},
    )
    pieces, errors, is_final = [], [], False
    while not is_final:
        result, error = responses.get(timeout=60)
        if error is not None:
            errors.append(str(error))
            continue
        response = result.get_response()
        assert response.id == "streamed"
        pieces.append(shown(result.as_numpy("TEXT"))[0])
        is_final = response.parameters["triton_final_response"].bool_param
    client.stop_stream()
    return {"pieces": pieces, "errors": errors}


def fail(client: Any, texts: list[str]) -> dict[str, str]:
    """The statuses of calls that must fail."""
    shared = triton.InferInput("TEXT", [1], "BYTES")
    shared.set_shared_memory("region", 10)
    classes = [triton.InferRequestedOutput("SCORE", class_count=2)]
    calls = {
        "unknown model": lambda: client.infer("none", [texts_input(texts)]),
        "shared memory": lambda: client.infer("tiny-en-de", [shared]),
        "register": lambda: client.register_system_shared_memory("region", "/key", 10),
        "classes": lambda: client.infer("tiny-classifier", [texts_input(texts)], outputs=classes),
        "sequence": lambda: client.infer(
            "tiny-en-de", [texts_input(texts)], sequence_id=3, sequence_start=True
        ),
        "no time": lambda: client.infer("tiny-en-de", [texts_input(texts)], client_timeout=1e-6),
    }
    found = {}
    for name, call in calls.items():
        try:
            call()
        except InferenceServerException as error:
            found[name] = str(error.status()).rpartition(".")[2]
    return found


def main() -> None:
    """Make all calls."""
    address, *texts = sys.argv[1:]
    client = triton.InferenceServerClient(address)
    found = {
        "description": describe(client),
        "whole": infer(client, texts),
        "later": infer_later(client, texts),
        "stream": stream(client, texts),
        "failures": fail(client, texts),
    }
    client.unregister_system_shared_memory()
    client.unload_model("tiny-lm")
    found["unloaded"] = client.is_model_ready("tiny-lm")
    client.load_model("tiny-lm")
    found["loaded"] = client.is_model_ready("tiny-lm")
    [statistics] = client.get_inference_statistics("tiny-bert").model_stats
    found["num_texts"] = statistics.inference_count
    print(json.dumps(found))


if __name__ == "__main__":
    main()
