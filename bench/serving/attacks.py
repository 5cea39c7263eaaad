"""Memory of a server under attack, compared with the maximum that docs/operations.md states.

    python -m bench.serving.attacks

Starts a server for each attack, with limits that keep the attacks short, and attacks it on raw
connections: with requests of which the last byte never comes, in unary calls and in streams; with
as much as a call may send unread, in as many calls as possible; with answers that are not read;
with the longest texts; with calls that are begun and reset. Prints the largest resident memory
during each attack, relative to the stated maximum as well. Exits with 1 if the maximum is exceeded
or if another caller gets no answer during an attack.
"""

import argparse
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.reporting import report, table
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from tests.support.http2 import (
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    RST_STREAM,
    RawConnection,
    frame,
    headers_of_call,
    literal,
    setting,
)
from tests.support.unfinished import UnfinishedCalls

TRANSLATE = "/attendant.v1.TranslationService/Translate"
BULK_TRANSLATE = "/attendant.v1.TranslationService/BulkTranslate"
WATCH = "/grpc.health.v1.Health/Watch"
TOKENIZE = "/attendant.v1.ModelService/Tokenize"

NUM_CONNECTIONS, NUM_STREAMS, NUM_TOKENIZER_THREADS = 40, 256, 2
MAX_REQUEST_BYTES = 4 * 2**20
MAX_HELD_BYTES = 24 * MAX_REQUEST_BYTES
LIMITS = (
    f"--max-connections={NUM_CONNECTIONS}",
    f"--max-held-bytes={MAX_HELD_BYTES}",
    f"--num-tokenizer-threads={NUM_TOKENIZER_THREADS}",
)
UNREAD_CALL_BYTES, CONNECTION_BYTES, WATCH_BYTES = 90_000, 100_000, 30_000
MAX_WAITING_CALLS, MAX_PENDING_CALLS, MAX_WATCHES = 1024, 10_000, 1000
MAX_HEALTH_REQUESTS, MAX_WAITING_HEALTH_REQUESTS = 16, 256
TOKENIZED_CALL_BYTES, QUEUED_TEXTS_BYTES = 200_000_000, 20_000_000
"""The figures of docs/operations.md, Memory of calls."""

LARGE = b"\1" * MAX_REQUEST_BYTES
WINDOW = b"\1" * (2**16 - 16)
TEXT = "The dog of the old king has not read this book. "
LONGEST = TokenizeRequest(model="en-de", texts=[(420 * TEXT)[:20_000]] * 200).SerializeToString()
LONG = TokenizeRequest(model="en-de", texts=[(420 * TEXT)[:20_000]] * 50).SerializeToString()
LARGE_ANSWERS = TokenizeRequest(model="en-de", texts=[40 * TEXT] * 20).SerializeToString()
QUIET_SECONDS, MAX_SECONDS = 5.0, 60.0
CALL_SECONDS, RETRY_SECONDS = 60.0, 1.0


@dataclass(frozen=True, slots=True)
class Attack:
    """Calls with the same request on some connections."""

    name: str
    path: str
    request: bytes
    num_connections: int
    num_calls: int = NUM_STREAMS
    """Calls on each connection."""
    is_finished: bool = False
    window: int = 2**16 - 1
    """How much of each answer the client lets come."""


ATTACKS = (
    Attack("unfinished requests", TRANSLATE, LARGE, 4),
    Attack("unfinished requests in streams", BULK_TRANSLATE, LARGE, 4),
    Attack("a window of each call", TRANSLATE, WINDOW, NUM_CONNECTIONS - 1),
    Attack("answers that are not read", TOKENIZE, LARGE_ANSWERS, 4, is_finished=True, window=0),
    Attack("watchers of the health", WATCH, b"", NUM_CONNECTIONS - 1, is_finished=True),
    Attack("longest texts", TOKENIZE, LONGEST, 4, 16, is_finished=True),
    Attack("longest texts in more calls", TOKENIZE, LONG, 4, 64, is_finished=True),
)


def stated_maximum(server: RunningServer, at_rest: int) -> int:
    """The sum of docs/operations.md for this server, from its memory at rest."""
    num_pending = min(MAX_PENDING_CALLS, NUM_CONNECTIONS * NUM_STREAMS)
    return int(
        at_rest
        + server.total("attendant_max_cache_bytes")
        + 2 * QUEUED_TEXTS_BYTES
        + 3 * server.total("attendant_max_held_bytes")
        + 2 * server.total("attendant_max_arriving_requests") * MAX_REQUEST_BYTES
        + MAX_HEALTH_REQUESTS * MAX_REQUEST_BYTES
        + NUM_TOKENIZER_THREADS * TOKENIZED_CALL_BYTES
        + (MAX_WAITING_CALLS + MAX_WAITING_HEALTH_REQUESTS + num_pending) * UNREAD_CALL_BYTES
        + NUM_CONNECTIONS * CONNECTION_BYTES
        + (MAX_WATCHES + 4 * NUM_CONNECTIONS) * WATCH_BYTES
    )


def send(server: RunningServer, attack: Attack) -> None:
    """Make the calls of an attack, and send until the server takes nothing more for a while."""
    with ExitStack() as stack:
        connections = []
        for _ in range(attack.num_connections):
            connection = stack.enter_context(UnfinishedCalls(_port(server)))
            connection.greet(setting(INITIAL_WINDOW_SIZE, attack.window))
            connection.begin(
                attack.path, attack.num_calls, attack.request, is_finished=attack.is_finished
            )
            connections.append(connection)
        give_up = time.monotonic() + MAX_SECONDS
        quiet_since = time.monotonic()
        while time.monotonic() < min(give_up, quiet_since + QUIET_SECONDS):
            if sum(connection.go_on() for connection in connections):
                quiet_since = time.monotonic()
        answer_a_neighbour(server)


def send_resets(server: RunningServer) -> None:
    """Begin and reset 40,000 calls on 20 connections."""
    block = b"".join(map(literal, headers_of_call(TRANSLATE)))
    cancel = struct.pack(">I", 8)
    flood = b"".join(
        frame(HEADERS, block, END_HEADERS, stream) + frame(RST_STREAM, cancel, stream=stream)
        for stream in range(1, 4001, 2)
    )
    for _ in range(20):
        with RawConnection(_port(server)) as connection:
            connection.greet()
            connection.socket.sendall(flood)
            answer_a_neighbour(server)


def answer_a_neighbour(server: RunningServer) -> None:
    """Make a call of another connection, which must be answered, and may be refused before."""
    give_up = time.monotonic() + CALL_SECONDS
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = TranslateRequest(model="en-de", texts=[TEXT])
        translate = TranslationServiceStub(channel).Translate
        while True:
            try:
                translate(request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                is_refused = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                if not is_refused or time.monotonic() > give_up:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                return


def _port(server: RunningServer) -> int:
    return int(server.target.rpartition(":")[2])


def run(flags: Sequence[str]) -> bool:
    """Make all attacks, and report; whether the maximum was kept."""
    rows = []
    for attack in (*ATTACKS, None):
        with running_server(ONE_OF_EACH_KIND, *LIMITS, *flags) as server:
            answer_a_neighbour(server)
            at_rest = server.resident_bytes()
            maximum = stated_maximum(server, at_rest)
            if attack:
                send(server, attack)
            else:
                send_resets(server)
            peak = server.peak_resident_bytes()
        rows.append(
            {
                "attack": attack.name if attack else "calls that are begun and reset",
                "at rest MB": at_rest / 1e6,
                "peak MB": peak / 1e6,
                "stated maximum MB": maximum / 1e6,
                "peak of maximum": peak / maximum,
            }
        )
    worst = max(float(str(row["peak of maximum"])) for row in rows)
    report("attacks", {"attacks": rows, "worst": worst}, table(rows), f"worst: {worst:.3f}")
    return worst <= 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    sys.exit(0 if run(build_parser().parse_args().server_flags) else 1)
