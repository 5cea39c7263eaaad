"""Random bytes for every method of a server: a status of ours, and no traceback in the log."""

import os
from contextlib import suppress
from datetime import timedelta

import grpc
import pytest
from attendant.v1 import (
    embedding_pb2,
    language_model_pb2,
    language_pb2,
    model_pb2,
    translation_pb2,
)
from attendant_vendored.inference import grpc_service_pb2
from attendant_vendored.tei import tei_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.observed import observed_server

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
FILES = (
    *(translation_pb2, embedding_pb2, language_pb2, language_model_pb2, model_pb2),
    *(grpc_service_pb2, tei_pb2),
)
METHODS = [
    (f"/{service.full_name}/{method.name}", method.server_streaming)
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
OURS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


fields = st.builds(
    field, st.integers(1, 15), st.binary(max_size=60) | st.text(max_size=12).map(str.encode)
)
contents = st.binary(max_size=60) | st.lists(fields, max_size=6).map(b"".join)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with observed_server(tmp_path_factory.mktemp("log")) as server:
        yield server
        log = server.new_log_lines()
        assert "Traceback" not in log
        assert " ERROR " not in log


@settings(
    max_examples=EXAMPLES or 150,
    deadline=timedelta(seconds=20),
    suppress_health_check=list(HealthCheck),
)
@given(method=st.sampled_from(METHODS), content=contents)
def test_random_bytes_get_a_status_of_ours(server, method, content):
    path, is_stream = method
    if is_stream:
        call = server.channel.unary_stream(path)(content, timeout=60)
        with suppress(grpc.RpcError):
            list(call)
    else:
        call = server.channel.unary_unary(path).future(content, timeout=60)
    assert call.code() in OURS, (path, content, call.details())


def test_the_server_is_well_after_random_bytes(server):
    assert server.good_answer()[0].hypotheses
    server.wait_for_rest()
