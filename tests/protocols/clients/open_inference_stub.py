"""Calls a server with the package open-inference-grpc, the stub of KServe's protocol; prints JSON.

Usage: open_inference_stub.py ADDRESS TEXT...
"""

import json
import sys
from typing import Any

import grpc
from open_inference.grpc import protocol as messages
from open_inference.grpc.service import GRPCInferenceServiceStub


def main() -> None:
    """Make all calls."""
    address, *texts = sys.argv[1:]
    stub: Any = GRPCInferenceServiceStub(grpc.insecure_channel(address))
    request = messages.ModelInferRequest(model_name="tiny-en-de")
    tensor = request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    request.parameters["beam_size"].int64_param = 4
    outputs = {output.name: output for output in stub.ModelInfer(request).outputs}
    metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="tiny-en-de"))
    found = {
        "live": stub.ServerLive(messages.ServerLiveRequest()).live,
        "ready": stub.ModelReady(messages.ModelReadyRequest(name="tiny-en-de")).ready,
        "inputs": [each.name for each in metadata.inputs],
        "TEXT": [text.decode() for text in outputs["TEXT"].contents.bytes_contents],
        "num_scores": len(outputs["SCORE"].contents.fp32_contents),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
