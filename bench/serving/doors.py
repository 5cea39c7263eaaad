"""The cost of the routes of HTTP beside the own methods of gRPC, for the same texts.

    python -m bench.serving.doors --data-dir DATA_DIR --pairs 5

Sends the same texts by each protocol in turn, as `bench.serving.protocols` does: one text in a call
from one caller, then 32 texts in a call from four callers. Requests are bytes made before, and
answers are not parsed, so that the client costs about the same for all. Bytes are those of a
request and its answer: of HTTP with all headers, of gRPC the messages alone. Each caller has a
connection of its own, also with gRPC.
"""

from __future__ import annotations  # some classes of grpc are generic in its stubs only

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import grpc
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.translation_pb2 import TranslateRequest
from google.protobuf.json_format import MessageToDict

from bench.reporting import report
from bench.servers import ONE_OF_EACH_KIND, free_port, open_channel, running_server
from bench.serving.protocols import (
    BATCH,
    CALLERS,
    EMBEDDING_MODEL,
    NUM_TEXTS,
    SINGLE,
    TRANSLATION_MODEL,
    Call,
    Measured,
    add,
    measure,
    results_as_json,
    rounds_parser,
    table,
)
from bench.texts import sample_texts

OWN = "attendant"
END = b"\r\n\r\n"
TRANSLATE = "/attendant.v1.TranslationService/Translate"
EMBED = "/attendant.v1.EmbeddingService/Embed"


class HttpConnections:
    """Open connections to a server; a call waits for a free one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def open(self, number: int) -> None:
        """Open so many connections."""
        for _ in range(number):
            self._free.put_nowait(
                await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
            )

    async def close(self) -> None:
        """Close all connections."""
        while not self._free.empty():
            _, writer = self._free.get_nowait()
            writer.close()
            await writer.wait_closed()

    async def ask(self, request: bytes) -> int:
        """Send a request; returns the bytes of its answer. Raises RuntimeError for a failure."""
        reader, writer = await self._free.get()
        writer.write(request)
        head = await reader.readuntil(END)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head.decode())
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self._free.put_nowait((reader, writer))
        return len(head) + length


def post(path: str, content: Any, content_type: str = "application/json") -> bytes:
    """A request of HTTP, with the headers that a client sends at least."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [
        *(f"POST {path} HTTP/1.1", "host: localhost", f"content-type: {content_type}"),
        *(f"content-length: {len(body)}", "", ""),
    ]
    return "\r\n".join(lines).encode() + body


def calls_of(
    channels: Sequence[grpc.aio.Channel], http: HttpConnections
) -> dict[str, dict[str, tuple[Callable[[Sequence[str]], bytes], Call]]]:
    """The function that makes the request of a call, and the call, by method and protocol."""
    translate, embed = own_call(channels, TRANSLATE), own_call(channels, EMBED)

    def openai(form: str) -> Callable[[Sequence[str]], bytes]:
        return lambda texts: post("/v1/embeddings", {"input": texts, "encoding_format": form})

    def translation(texts: Sequence[str]) -> TranslateRequest:
        return TranslateRequest(model=TRANSLATION_MODEL, texts=texts)

    def embedding(texts: Sequence[str]) -> EmbedRequest:
        return EmbedRequest(model=EMBEDDING_MODEL, texts=texts, normalize=True)

    return {
        "translate": {
            OWN: (lambda t: translation(t).SerializeToString(), translate),
            **connect(TRANSLATE, translation, http),
            "libretranslate": (
                lambda t: post("/translate", {"q": list(t), "source": "en", "target": "de"}),
                http.ask,
            ),
        },
        "embed": {
            OWN: (lambda t: embedding(t).SerializeToString(), embed),
            **connect(EMBED, embedding, http),
            "openai, base64": (openai("base64"), http.ask),
            "openai, float": (openai("float"), http.ask),
            "tei": (lambda t: post("/embed", {"inputs": list(t)}), http.ask),
        },
    }


def connect(
    path: str, request: Callable[[Sequence[str]], Any], http: HttpConnections
) -> dict[str, tuple[Callable[[Sequence[str]], bytes], Call]]:
    """The calls of a method over Connect and gRPC-Web."""

    def in_envelope(texts: Sequence[str]) -> bytes:
        message = request(texts).SerializeToString()
        body = b"\0" + len(message).to_bytes(4, "big") + message
        return post(path, body, "application/grpc-web+proto")

    def as_protobuf(texts: Sequence[str]) -> bytes:
        return post(path, request(texts).SerializeToString(), "application/proto")

    return {
        "connect, json": (lambda t: post(path, MessageToDict(request(t))), http.ask),
        "connect, proto": (as_protobuf, http.ask),
        "grpc-web": (in_envelope, http.ask),
    }


def own_call(channels: Sequence[grpc.aio.Channel], method: str) -> Call:
    """Calls a method over one connection after the other, since each is a caller of its own."""
    calls: Any = cycle([channel.unary_unary(method) for channel in channels])
    return lambda request: next(calls)(request)


async def num_bytes(call: Call, request: bytes) -> int:
    """Bytes of a request and its answer."""
    answer: Any = await call(request)
    return len(request) + (answer if isinstance(answer, int) else len(answer))


async def run(arguments: argparse.Namespace) -> None:
    """Run all loads and report them."""
    texts = sample_texts(arguments.data_dir, "short", NUM_TEXTS)
    results: dict[str, dict[str, Measured]] = {}
    sizes: dict[str, dict[str, int]] = {}
    port = free_port()
    flags = [f"--http-port={port}", "--http-host=127.0.0.1", *arguments.server_flags]
    with running_server(ONE_OF_EACH_KIND, *flags) as server:
        http = HttpConnections(port)
        await http.open(max(CALLERS.values()))
        for size in (SINGLE, BATCH):
            batches = [texts[i : i + size] for i in range(0, NUM_TEXTS, size)]
            async with AsyncExitStack() as stack:
                channels = [
                    await stack.enter_async_context(open_channel(server))
                    for _ in range(CALLERS[size])
                ]
                for method, protocols in calls_of(channels, http).items():
                    load = f"{method}, {size} in a call"
                    found = results[load] = {name: Measured() for name in protocols}
                    sizes[load] = {
                        name: await num_bytes(call, make(batches[0]))
                        for name, (make, call) in protocols.items()
                    }
                    for pair in range(arguments.pairs + 1):  # the first round warms up
                        for name, (make, call) in protocols.items():
                            requests = list(map(make, batches))
                            row = await measure(server, call, requests, size, arguments.seconds)
                            if pair:
                                add(found[name], row)
        await http.close()
    shown = "\n".join([table(results), "", bytes_table(sizes)])
    report("doors", {"results": results_as_json(results), "bytes": sizes}, shown)


def bytes_table(sizes: dict[str, dict[str, int]]) -> str:
    """Bytes of a call by load and protocol."""
    rows = ["| load | protocol | bytes | of own |", "|---|---|---|---|"]
    for load, found in sizes.items():
        rows += [
            f"| {load} | {name} | {number} | {number / found[OWN]:.2f} |"
            for name, number in found.items()
        ]
    return "\n".join(rows)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return rounds_parser(__doc__)


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
