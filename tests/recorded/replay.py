"""Starts a server and sends the recorded calls, one at a time.

Uses only the public command of the server, so that any version of it can be tested.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import grpc

from tests.recorded.answers import Answer, joined_pieces, readable_end, readable_response
from tests.recorded.call import METHODS, Call
from tests.recorded.servers import RecordedServer

TIMEOUT_SECONDS = 300.0
COMMON_FLAGS = (
    *("--host", "127.0.0.1", "--port", "0", "--metrics-port", "-1", "--lame-duck-seconds", "0"),
    # Several workers would split texts at random, and the last bits depend on the batch.
    *("--num-threads", "1"),
    # Longer than any call takes on a busy machine.
    *("--max-request-seconds", str(TIMEOUT_SECONDS)),
)
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
_PORT = re.compile(r"serving (?:on )?port[ =](\d+)")


def installed_server() -> Path:
    """The ``attendant-server`` of the current environment."""
    return Path(sys.executable).with_name("attendant-server")


def replay(server: RecordedServer, executable: Path) -> dict[str, Answer]:
    """The answers of a newly started server to all of its calls, by call name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = server.write_bundles(folder)
        command = [str(executable), "--bundles", str(bundles), *COMMON_FLAGS, *server.flags]
        with _running(command, folder / "server.log") as port:
            address = f"127.0.0.1:{port}"
            with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
                return {call.name: _answer(channel, call) for call in server.calls}


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[int]:
    """Run a server while the block runs; yields its port when it is serving."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ATTENDANT_")}
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield _port(process, log)
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_SECONDS)
        finally:
            process.kill()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while True:
        has_ended = process.poll() is not None
        shown = log.read_text(encoding="utf-8")
        found = _PORT.search(shown)
        if found:
            return int(found[1])
        if has_ended or time.monotonic() > give_up:
            raise RuntimeError(f"the server did not start:\n{shown}")
        time.sleep(0.02)


def _answer(channel: grpc.Channel, call: Call) -> Answer:
    rpc = _sent(channel, call)
    messages = [
        readable_response(METHODS[call.method].output_type, content)
        for content in _messages(rpc, call)
    ]
    if call.method.endswith(("/StreamTranslate", "/StreamGenerate")):
        messages = joined_pieces(messages)
    if call.max_messages is not None:
        rpc.cancel()
        return {"messages": messages}
    answer = readable_end(
        rpc.code().name, rpc.details(), rpc.trailing_metadata(), dict(call.metadata)
    )
    if rpc.initial_metadata():
        answer["initial_metadata"] = [str(item) for item in rpc.initial_metadata()]
    if messages:
        answer["messages"] = messages
    return answer


def _sent(channel: Any, call: Call) -> Any:
    """The call in progress, as an iterator of raw messages."""
    path, method = f"/{call.method}", METHODS.get(call.method)
    arguments = {"timeout": TIMEOUT_SECONDS, "metadata": call.metadata}
    if method is not None and method.client_streaming:
        return channel.stream_stream(path)(iter(call.contents), **arguments)
    # On the wire, a unary method is a stream with one response.
    [content] = call.contents
    return channel.unary_stream(path)(content, **arguments)


def _messages(rpc: Any, call: Call) -> list[bytes]:
    """All messages up to the end of the call, even if it ends with an error."""
    messages: list[bytes] = []
    try:
        messages.extend(islice(rpc, call.max_messages))
    except grpc.RpcError:
        assert rpc.code() is not grpc.StatusCode.OK
    return messages
