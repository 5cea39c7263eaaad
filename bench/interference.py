"""What a flood of embeddings does to the pace of translations that are being decoded.

    python -m bench.interference --data-dir DATA_DIR --pairs 10

Four long streams are decoded without and with a flood of embedding calls, in turn. Measured are the
times between two pieces of a stream: a piece is a word or two, of one or a few decoding steps.
Prints the p99 of both and their ratio. A pair takes about ten seconds.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc
from attendant.v1 import embedding_pb2, translation_pb2
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.loads import LoadResult, in_calls, in_turn
from bench.reporting import compare, markdown_table, save_results
from bench.serving import ONE_OF_EACH_KIND, running_server
from bench.texts import add_data_dir, paragraphs, sample_texts

NUM_STREAMS = 4
NUM_TOKENS = 120
NUM_FLOODS, TEXTS_PER_CALL = 4, 64
ALONE, FLOODED = "alone", "flooded"


class Interference:
    """Streams and floods on one server."""

    def __init__(
        self, channel: grpc.aio.Channel, sources: Sequence[str], flood: Sequence[str]
    ) -> None:
        self._stream = TranslationServiceStub(channel).StreamTranslate
        self._embed = EmbeddingServiceStub(channel).Embed
        self._sources = sources
        self._calls = in_calls(flood, TEXTS_PER_CALL)
        self.num_flooded = 0

    async def alone(self) -> LoadResult:
        """The pace of the streams, with nothing else."""
        result = LoadResult()
        started = time.perf_counter()
        streams = [self._follow(source, result) for source in self._sources]
        await asyncio.gather(*streams)
        result.seconds = time.perf_counter() - started
        return result

    async def flooded(self) -> LoadResult:
        """The pace of the streams, with the flood."""
        floods = [asyncio.create_task(self._flood(i)) for i in range(NUM_FLOODS)]
        await asyncio.sleep(0.5)
        result = await self.alone()
        for flood in floods:
            flood.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        return result

    async def _follow(self, source: str, result: LoadResult) -> None:
        options = translation_pb2.TranslateOptions(
            min_output_tokens=NUM_TOKENS, max_output_tokens=NUM_TOKENS
        )
        request = translation_pb2.StreamTranslateRequest(text=source, options=options)
        last: float | None = None
        async for _ in self._stream(request):
            now = time.perf_counter()
            if last is not None:
                result.latencies.append(now - last)
            last = now

    async def _flood(self, first: int) -> None:
        while True:
            texts = self._calls[first % len(self._calls)]
            await self._embed(embedding_pb2.EmbedRequest(texts=texts))
            self.num_flooded += len(texts)
            first += NUM_FLOODS


async def run(arguments: argparse.Namespace) -> None:
    """Measure in turn and print the table."""
    sources = sample_texts(arguments.data_dir, "short", NUM_STREAMS)
    flood = paragraphs(arguments.data_dir, 1024)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(
            running_server(ONE_OF_EACH_KIND, *arguments.server_flags.split())
        )
        options = [("grpc.enable_http_proxy", 0)]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(server.target, options=options)
        )
        interference = Interference(channel, sources, flood)
        measures = {ALONE: interference.alone, FLOODED: interference.flooded}
        results = await in_turn(measures, arguments.pairs)
    rows, figures = [], {}
    for percent in (50, 99):
        values = {
            name: [r.latency(percent) for r in measured] for name, measured in results.items()
        }
        both = compare(values[FLOODED], values[ALONE])
        figures[f"p{percent}_seconds"] = both
        medians = (f"{1e3 * both.theirs.median:.2f}", f"{1e3 * both.ours.median:.2f}")
        rows.append([f"p{percent} ms", *medians, f"{both.pair_ratios:.2f}"])
    headers = ["between two pieces", ALONE, FLOODED, "ratio (quartiles; extremes)"]
    print(markdown_table(headers, rows))
    print(f"{interference.num_flooded} texts were embedded meanwhile")
    print(save_results("interference", figures))


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--server-flags", default="", help="for the server, blanks between them")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
