"""The cost of each protocol of a server beside its own, for the same texts.

    python -m bench.serving.protocols --data-dir DATA_DIR --pairs 5

Sends the same texts by each protocol in turn: one text in a call from one caller, then 32 texts in
a call from four callers. TEI takes one text in a request, so its 32 texts are a stream. Requests
are bytes made before, and answers are not read, so that the client costs the same for all.
Prints the median latency, the texts in a second, and the processor time of the server's event loop
for a call. Compare rows of one load only.
"""

from __future__ import annotations  # some classes of grpc are generic in its stubs only

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_vendored.inference.grpc_service_pb2 import ModelInferRequest
from attendant_vendored.tei import tei_pb2

from bench.arguments import add_server_flags, bench_parser
from bench.reporting import report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, open_channel, running_server
from bench.texts import sample_texts

NUM_TEXTS = 512
SINGLE, BATCH = 1, 32
CALLERS = {SINGLE: 1, BATCH: 4}
TRANSLATION_MODEL, EMBEDDING_MODEL = "en-de", "bert-en-de"
Call = Callable[[Any], Awaitable[Any]]


@dataclass(slots=True)
class Measured:
    """The rounds of one protocol and load."""

    milliseconds: list[float] = field(default_factory=list)
    """Median latency of each round."""
    texts_per_second: list[float] = field(default_factory=list)
    event_loop_milliseconds: list[float] = field(default_factory=list)
    """Processor time for each call."""


def infer_request(model: str, texts: Sequence[str]) -> bytes:
    """A request of KServe, as Triton's clients make it."""
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(texts), 1])
    encoded = [text.encode() for text in texts]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
    request.raw_input_contents.append(raw)
    return request.SerializeToString()


def tei_requests(texts: Sequence[str]) -> list[bytes]:
    """Requests of TEI."""
    return [tei_pb2.EmbedRequest(inputs=text).SerializeToString() for text in texts]


def calls_of(channel: grpc.aio.Channel, size: int) -> dict[str, dict[str, tuple[Any, Call]]]:
    """The function that makes the request of a call, and the call, by method and protocol."""
    infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    stream: Any = channel.stream_stream("/tei.v1.Embed/EmbedStream")

    async def embed_stream(requests: list[bytes]) -> None:
        async for _ in stream(iter(requests)):
            pass

    tei_embed: Any = channel.unary_unary("/tei.v1.Embed/Embed")
    translate: Any = channel.unary_unary("/attendant.v1.TranslationService/Translate")
    embed: Any = channel.unary_unary("/attendant.v1.EmbeddingService/Embed")
    return {
        "translate": {
            "attendant": (
                lambda t: TranslateRequest(model=TRANSLATION_MODEL, texts=t).SerializeToString(),
                translate,
            ),
            "kserve": (lambda t: infer_request(TRANSLATION_MODEL, t), infer),
        },
        "embed": {
            "attendant": (
                lambda t: EmbedRequest(model=EMBEDDING_MODEL, texts=t).SerializeToString(),
                embed,
            ),
            "kserve": (lambda t: infer_request(EMBEDDING_MODEL, t), infer),
            "tei": (tei_requests, embed_stream)
            if size > 1
            else (lambda t: tei_requests(t)[0], tei_embed),
        },
    }


async def measure(
    server: RunningServer, call: Call, requests: Sequence[Any], size: int, seconds: float
) -> tuple[float, float, float]:
    """Median latency in ms, texts in a second, and ms of the event loop for each call."""
    latencies: list[float] = []
    give_up = time.perf_counter() + seconds

    async def caller(first: int) -> None:
        number = first
        while (started := time.perf_counter()) < give_up:
            await call(requests[number % len(requests)])
            latencies.append(time.perf_counter() - started)
            number += CALLERS[size]

    cpu, started = server.event_loop_cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(CALLERS[size])))
    elapsed = time.perf_counter() - started
    cpu = server.event_loop_cpu_seconds() - cpu
    num_calls = len(latencies)
    return (
        1000 * statistics.median(latencies),
        size * num_calls / elapsed,
        1000 * cpu / num_calls,
    )


async def run(arguments: argparse.Namespace) -> None:
    """Run all loads and report them."""
    texts = sample_texts(arguments.data_dir, "short", NUM_TEXTS)
    results: dict[str, dict[str, Measured]] = {}
    with running_server(ONE_OF_EACH_KIND, *arguments.server_flags) as server:
        for size in (SINGLE, BATCH):
            batches = [texts[i : i + size] for i in range(0, NUM_TEXTS, size)]
            async with open_channel(server) as channel:
                for method, protocols in calls_of(channel, size).items():
                    load = f"{method}, {size} in a call"
                    found = results[load] = {name: Measured() for name in protocols}
                    for pair in range(arguments.pairs + 1):  # the first round warms up
                        for name, (make, call) in protocols.items():
                            requests = list(map(make, batches))
                            row = await measure(server, call, requests, size, arguments.seconds)
                            if pair:
                                add(found[name], row)
    report("protocols", {"results": results_as_json(results)}, table(results))


def add(measured: Measured, row: tuple[float, float, float]) -> None:
    """Add the figures of a round."""
    measured.milliseconds.append(row[0])
    measured.texts_per_second.append(row[1])
    measured.event_loop_milliseconds.append(row[2])


def results_as_json(results: dict[str, dict[str, Measured]]) -> dict[str, Any]:
    """All rounds, by load and protocol."""
    return {
        load: {
            name: {slot: getattr(measured, slot) for slot in Measured.__slots__}
            for name, measured in found.items()
        }
        for load, found in results.items()
    }


def table(results: dict[str, dict[str, Measured]]) -> str:
    """Medians of rounds, and medians of the differences and ratios to the own protocol."""
    rows = [
        "| load | protocol | p50 ms | more than own, ms | texts/s | of own | event loop, ms/call |",
        "|---|---|---|---|---|---|---|",
    ]
    for load, found in results.items():
        own = found["attendant"]
        for name, measured in found.items():
            pairs = zip(measured.milliseconds, own.milliseconds, strict=True)
            more = statistics.median(a - b for a, b in pairs)
            pairs = zip(measured.texts_per_second, own.texts_per_second, strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            rows.append(
                f"| {load} | {name} | {statistics.median(measured.milliseconds):.2f} | {more:+.2f} "
                f"| {statistics.median(measured.texts_per_second):.0f} | {ratio:.2f} "
                f"| {statistics.median(measured.event_loop_milliseconds):.2f} |"
            )
    return "\n".join(rows)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return rounds_parser(__doc__)


def rounds_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a bench that measures protocols in rounds."""
    parser = bench_parser(description)
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each protocol")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of a round")
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
