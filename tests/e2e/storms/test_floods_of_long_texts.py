"""Resident memory under many calls with the longest texts."""

from contextlib import ExitStack
from pathlib import Path

import grpc
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.model_pb2_grpc import ModelServiceStub

from tests.support.application import TINY_BUNDLES
from tests.support.observed import observed_server

NUM_CONNECTIONS, NUM_CALLS = 4, 24
MB = 1_000_000
MAX_HELD_BYTES, MAX_REQUEST_BYTES = 32 * MB, 1 * MB
TOKENIZATION_BYTES = 60 * MB
"""What the thread takes for the texts of one of these calls and for its answer."""
MAX_BYTES = 3 * MAX_HELD_BYTES + 2 * 32 * MAX_REQUEST_BYTES + TOKENIZATION_BYTES
"""The sum of docs/operations.md, without the memory at rest."""


def test_many_calls_with_the_longest_texts_stay_within_the_stated_memory(tmp_path: Path):
    model = next(path.name for path in sorted(TINY_BUNDLES.iterdir()) if path.is_dir())
    request = TokenizeRequest(model=model, texts=["the dog sees the king. " * 850] * 48)
    flags = ("--max-held-bytes", str(MAX_HELD_BYTES), "--max-request-bytes", "1000000")
    with observed_server(tmp_path, *flags) as server, ExitStack() as stack:
        at_rest = server.resident_bytes()
        calls, most = [], 0
        for _ in range(NUM_CONNECTIONS):
            channel = stack.enter_context(server.new_channel())
            stub = ModelServiceStub(channel)
            calls += [stub.Tokenize.future(request) for _ in range(NUM_CALLS)]
        while not all(call.done() for call in calls):
            most = max(most, server.resident_bytes())
        codes = {call.code() for call in calls}
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert grpc.StatusCode.OK in codes
        assert most - at_rest < MAX_BYTES
        server.wait_for_rest()
