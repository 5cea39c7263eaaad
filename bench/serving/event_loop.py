"""Processor time of the event loop, and bytes of the answer, for a call of one text.

    python -m bench.serving.event_loop --data-dir DATA_DIR --rounds 5

Translates the same short texts with answers of several sizes, alternately: small ones, which are
the default, with tokens, with alignments, and with both. The event loop runs on the first thread of
the server's process, whose processor time the kernel counts in steps of 10 ms. Aligning itself is
done by the workers, and so counts for the whole process only.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import grpc
from attendant.v1 import translation_pb2 as pb
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.loads import LoadResult, Refused, closed_loop, in_turn
from bench.reporting import report, spread, table
from bench.servers import RunningServer, open_channel, running_server
from bench.texts import sample_texts
from bench.translation.caller import TIMEOUT_SECONDS

NUM_TEXTS = 2048
WITH_TOKENS = pb.TranslateOptions(return_tokens=True)
ANSWERS = {
    "small": pb.TranslateRequest(),
    "tokens": pb.TranslateRequest(options=WITH_TOKENS),
    "alignments": pb.TranslateRequest(return_alignments=True),
    "tokens and alignments": pb.TranslateRequest(options=WITH_TOKENS, return_alignments=True),
}
"""Requests without texts, by the names of the answers that they ask for."""
Translate = Callable[..., Awaitable[pb.TranslateResponse]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What calls with answers of one kind cost, for each call."""

    event_loop_ms: float
    process_ms: float
    answer_bytes: float


async def answer_bytes(translate: Translate, asked: pb.TranslateRequest, text: str) -> int:
    """Translate one text; returns the size of the answer."""
    request = pb.TranslateRequest(texts=[text])
    request.MergeFrom(asked)
    try:
        response = await translate(request, timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise Refused(error.code().name) from error
    if response.translations[0].HasField("error"):
        raise Refused("error of a text")
    return response.ByteSize()


def cost(result: LoadResult, event_loop_seconds: float, process_seconds: float) -> Cost:
    """The cost of each call of a load. Ends the bench if a call has failed."""
    if result.failures:
        raise SystemExit(f"calls failed: {dict(result.failures)}")
    num_calls = result.num_texts
    return Cost(
        1e3 * event_loop_seconds / num_calls,
        1e3 * process_seconds / num_calls,
        result.num_outputs / num_calls,
    )


async def measure(
    server: RunningServer,
    answers: Mapping[str, pb.TranslateRequest],
    texts: Sequence[str],
    *,
    num_callers: int,
    seconds: float,
    rounds: int,
) -> dict[str, list[Cost]]:
    """The costs of each round of calls with these answers, by their names."""

    async def load(translate: Translate, asked: pb.TranslateRequest) -> Cost:
        before = server.event_loop_cpu_seconds(), server.cpu_seconds()
        send = partial(answer_bytes, translate, asked)
        result = await closed_loop(send, texts, num_callers, seconds)
        return cost(
            result, server.event_loop_cpu_seconds() - before[0], server.cpu_seconds() - before[1]
        )

    async with open_channel(server) as channel:
        translate = TranslationServiceStub(channel).Translate
        loads = {name: partial(load, translate, asked) for name, asked in answers.items()}
        return await in_turn(loads, rounds)


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    texts = sample_texts(arguments.data_dir, "short", NUM_TEXTS)
    with running_server("--models=en-de", *arguments.server_flags) as server:
        measured = await measure(
            server,
            ANSWERS,
            texts,
            num_callers=arguments.callers,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
        )
    rows = [
        {
            "answer": name,
            "event loop, ms/call": f"{spread([each.event_loop_ms for each in costs]):.2f}",
            "process, ms/call": f"{spread([each.process_ms for each in costs]):.2f}",
            "bytes/call": f"{spread([each.answer_bytes for each in costs]).median:.0f}",
        }
        for name, costs in measured.items()
    ]
    report("event_loop", {"callers": arguments.callers, "costs": measured}, table(rows))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--callers", type=int, default=64, help="calls at the same time")
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
