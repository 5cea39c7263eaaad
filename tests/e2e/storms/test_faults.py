"""Faults of the machine and of models in a real server: callers, health and gauges afterwards."""

import re
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.model_control_pb2 import LoadModelRequest, UnloadModelRequest

from tests.support.observed import GOOD_REQUEST, ObservedServer, observed_server
from tests.support.serving import TIMEOUT_SECONDS, failure_of, wait_until

FAULTY_MODEL = """
import os, sys
from attendant_server.__main__ import main
from attendant_server.runtime.decoder_cache import OnnxDecoderCache

step = OnnxDecoderCache.step

def faulty(self, *arguments):
    found = step(self, *arguments)
    if os.path.exists({switch!r}):
        {fault}
    return found

OnnxDecoderCache.step = faulty
sys.exit(main())
"""
"""A server whose model fails while the file ``switch`` exists."""
JUMPING_CLOCK = """
import sys, time
from attendant_server.__main__ import main

true_time, calls = time.time, iter(range(10**9))
time.time = lambda: true_time() + (-1e6 if next(calls) % 2 else 1e6)
sys.exit(main())
"""


def test_a_server_that_was_stopped_for_a_while_goes_on(tmp_path: Path):
    with observed_server(tmp_path) as server:
        expected = server.good_answer()
        server.process.send_signal(signal.SIGSTOP)
        try:
            failure = failure_of(server.translation.Translate, GOOD_REQUEST, timeout=1)
            assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert server.good_answer() == expected
        assert server.is_serving
        server.wait_for_rest()


def test_a_second_signal_ends_the_server_without_a_traceback(tmp_path: Path):
    with observed_server(tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)
        # The system merges both signals if the first one has not been handled yet.
        assert server.process.wait(TIMEOUT_SECONDS) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.new_log_lines()


def test_a_server_without_free_files_serves_its_callers_and_recovers(tmp_path: Path):
    with observed_server(tmp_path) as server:
        expected = server.good_answer()
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1]
        limit = (server.num_files() + 2, hard)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limit)
        channels = [server.new_channel() for _ in range(20)]
        calls = [channel.unary_unary("/x").future(b"", timeout=1) for channel in channels]
        assert all(call.code() is not grpc.StatusCode.OK for call in calls)
        assert server.good_answer() == expected
        for channel in channels:
            channel.close()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        wait_until(lambda: server.metric("attendant_concurrent_calls") == 0)
        assert server.is_serving


def test_a_clock_that_jumps_changes_no_answer_of_a_call_without_a_deadline(tmp_path: Path):
    with observed_server(tmp_path) as server:
        expected = server.good_answer()
    with observed_server(tmp_path, program=("-c", JUMPING_CLOCK)) as server:
        for _ in range(5):
            assert list(server.translation.Translate(GOOD_REQUEST).translations) == expected
        server.wait_for_rest()


FAULTS = {
    "raises": "raise RuntimeError('broken weights')",
    "finds no memory": "raise MemoryError",
    "returns NaN": "found.log_probabilities[:] = float('nan')",
    "returns no rows": "return type(found)(found.token_ids[:0], found.log_probabilities[:0])",
    "returns one number for each row": (
        "return type(found)(found.token_ids[:, 0], found.log_probabilities[:, 0])"
    ),
    "returns tokens that do not exist": "found.token_ids[:] = 2**40",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_model_that_fails_in_a_step_fails_the_calls_in_it_only(tmp_path: Path, fault: str):
    switch = tmp_path / "fails"
    program = FAULTY_MODEL.format(fault=fault, switch=str(switch))
    with observed_server(tmp_path, program=("-c", program)) as server:
        expected = server.good_answer()
        switch.touch()
        failure = failure_of(server.translation.Translate, GOOD_REQUEST, timeout=TIMEOUT_SECONDS)
        assert failure.code() is grpc.StatusCode.INTERNAL
        assert failure.details().startswith("the model ")
        switch.unlink()
        assert server.good_answer() == expected
        assert server.is_serving
        server.wait_for_rest()
        faults = re.compile(b"event=(model_failed|result_not_finite) ")
        wait_until(lambda: bool(faults.search(server.log.read_bytes())))  # the log is written later


FAULTY_EMBEDDER = """
import os, sys
import numpy as np
from attendant_server.__main__ import main
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel

embed = OnnxEmbeddingModel.embed

def faulty(self, texts, *arguments):
    found = embed(self, texts, *arguments)
    if not os.path.exists({switch!r}):
        return found
    return {{name: {fault} for name, array in found.items()}}

OnnxEmbeddingModel.embed = faulty
sys.exit(main())
"""
EMBEDDER_FAULTS = {
    "returns NaN": "array * np.float32('nan')",
    "returns no rows": "array[:0]",
    "returns one row too many": "np.concatenate([array, array[:1]])",
    "returns one number for each row": "array[:, 0]",
    "returns vectors of another width": "array[..., :3]",
}


@pytest.mark.parametrize("fault", EMBEDDER_FAULTS.values(), ids=EMBEDDER_FAULTS.keys())
def test_an_embedder_that_fails_fails_its_own_calls_only(tmp_path: Path, fault: str):
    switch = tmp_path / "fails"
    program = FAULTY_EMBEDDER.format(fault=fault, switch=str(switch))
    request = EmbedRequest(texts=["The dog.", "The king sees."])
    with observed_server(tmp_path, program=("-c", program)) as server:
        expected = server.good_answer()
        vectors = server.embedding.Embed(request).results
        switch.touch()
        failure = failure_of(server.embedding.Embed, request, timeout=TIMEOUT_SECONDS)
        assert failure.code() is grpc.StatusCode.INTERNAL
        assert server.good_answer() == expected
        switch.unlink()
        assert server.embedding.Embed(request).results == vectors
        assert server.is_serving
        server.wait_for_rest()


FAULTY_ENCODER = """
import os, sys
from attendant_server.__main__ import main
from attendant_server.runtime.translation_model import OnnxTranslationModel

class FaultySession:
    def __init__(self, session):
        self.session = session
    def __enter__(self):
        self.entered = self.session.__enter__()
        return self
    def __exit__(self, *arguments):
        return self.session.__exit__(*arguments)
    def run(self, names, feeds):
        found = self.entered.run(names, feeds)
        is_faulty = os.path.exists({switch!r})
        return [{fault} for array in found] if is_faulty else found

run = OnnxTranslationModel._run_encoder

def run_encoder(self, *arguments):
    session = self.encoder.session
    self.encoder.session = lambda: FaultySession(session())
    try:
        return run(self, *arguments)
    finally:
        self.encoder.session = session

OnnxTranslationModel._run_encoder = run_encoder
sys.exit(main())
"""
ENCODER_FAULTS = {
    "returns no rows": "array[:0]",
    "returns one row too many": "array.repeat(2, axis=0)",
    "returns short rows": "array[:, :, :1]",
}


@pytest.mark.parametrize("fault", ENCODER_FAULTS.values(), ids=ENCODER_FAULTS.keys())
def test_an_encoder_that_fails_fails_its_own_calls_only(tmp_path: Path, fault: str):
    switch = tmp_path / "fails"
    program = FAULTY_ENCODER.format(fault=fault, switch=str(switch))
    request = EmbedRequest(texts=["The dog.", "The king sees."])
    with observed_server(tmp_path, program=("-c", program)) as server:
        expected = server.good_answer()
        vectors = server.embedding.Embed(request).results
        switch.touch()
        failure = failure_of(server.translation.Translate, GOOD_REQUEST, timeout=TIMEOUT_SECONDS)
        assert failure.code() is grpc.StatusCode.INTERNAL
        assert server.embedding.Embed(request).results == vectors
        switch.unlink()
        assert server.good_answer() == expected
        assert server.is_serving
        server.wait_for_rest()


def load(server: ObservedServer, model: str) -> None:
    stub: Any = model_control_pb2_grpc.ModelControlServiceStub(server.channel)
    stub.LoadModel(LoadModelRequest(model=model), timeout=TIMEOUT_SECONDS)


def unload(server: ObservedServer, model: str) -> None:
    stub: Any = model_control_pb2_grpc.ModelControlServiceStub(server.channel)
    stub.UnloadModel(UnloadModelRequest(model=model), timeout=TIMEOUT_SECONDS)


def test_a_server_that_can_write_no_files_serves_on_and_loads_no_model(tmp_path: Path):
    """No file may grow beyond a few bytes, which the writer sees as it sees a full disk."""
    flags = ("--model-control", "on", "--log-level", "info")
    with observed_server(tmp_path, *flags) as server:
        expected = server.good_answer()
        unload(server, "tiny-bert")
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100, hard))
        failure = failure_of(load, server, "tiny-bert")
        assert failure.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.details() == (
            "model: tiny-bert/1/embedder.fp32.onnx: cannot be copied to the temporary folder: "
            "File too large"
        )
        assert server.good_answer() == expected
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        load(server, "tiny-bert")
        assert server.good_answer() == expected
        wait_until(lambda: b"event=model_loaded model=tiny-bert/1" in server.log.read_bytes())
        server.wait_for_rest()


def test_a_server_without_free_memory_recovers_or_ends_and_never_hangs(tmp_path: Path):
    """Libraries written in C++ and Rust may end a process that gets no memory."""
    with observed_server(tmp_path) as server:
        expected = server.good_answer()
        pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0])
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_AS)[1]
        limit = pages * resource.getpagesize() + 2_000_000
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, hard))
        request = EmbedRequest(texts=["dog " * 60] * 256)
        embed = server.embedding.Embed
        for call in [embed.future(request, timeout=5) for _ in range(16)]:
            call.exception()
        if server.process.poll() is None:
            with suppress(ProcessLookupError):
                resource.prlimit(server.process.pid, resource.RLIMIT_AS, (hard, hard))
        answer = server.translation.Translate.future(GOOD_REQUEST, timeout=TIMEOUT_SECONDS)
        if answer.code() is grpc.StatusCode.OK:
            assert list(answer.result().translations) == expected
        else:
            assert answer.code() is grpc.StatusCode.UNAVAILABLE
            assert server.process.wait(TIMEOUT_SECONDS) < 0
