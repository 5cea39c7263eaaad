"""Memory of the caches compared with the need of running sentences, and its release.

    python -m bench.serving.memory --data-dir DATA_DIR

Makes 200 calls to the three built-in translation models, 16 concurrently: greedy search and beams
of 2, 4, 5 and 8, every fourth with a long source. Reads ``/metrics`` all the time. Prints the
largest cache memory beyond 1.5 times the need (the limit is 8 MB), and the ratio of resident memory
30 seconds after the calls to that after a warm-up of one greedy call per model.
"""

import argparse
import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attendant.v1 import text_pb2, translation_pb2
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.reporting import report
from bench.servers import RunningServer, open_channel, running_server
from bench.texts import sample_texts

if TYPE_CHECKING:
    from attendant.v1.translation_pb2_grpc import TranslationServiceAsyncStub

MODELS = ("en-de", "de-en", "en-fr")
BEAM_SIZES = (1, 2, 4, 5, 8)
NUM_CALLS, CONCURRENCY = 200, 16
SENTENCES_OF_LONG_SOURCE = 4
SETTLE_SECONDS = 30.0
SAMPLE_SECONDS = 0.05
MAX_EXCESS_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class CacheSample:
    """Allocated and needed cache memory of one model at one moment."""

    needed_bytes: int
    allocated_bytes: int

    @property
    def excess_bytes(self) -> float:
        """Allocated bytes beyond 1.5 times the need."""
        return self.allocated_bytes - 1.5 * self.needed_bytes


def requests(data_dir: Path, seed: int = 1) -> list[translation_pb2.TranslateRequest]:
    """The calls, reproducible by the seed."""
    rng = random.Random(seed)
    short = sample_texts(data_dir, "short", NUM_CALLS)
    long = sample_texts(data_dir, "long", NUM_CALLS)
    return [
        translation_pb2.TranslateRequest(
            texts=[
                " ".join(rng.sample(long, SENTENCES_OF_LONG_SOURCE)) if i % 4 == 0 else short[i]
            ],
            model=rng.choice(MODELS),
            options=translation_pb2.TranslateOptions(beam_size=rng.choice(BEAM_SIZES)),
            truncation=text_pb2.TRUNCATION_RIGHT,
        )
        for i in range(NUM_CALLS)
    ]


async def sample_caches(server: RunningServer, samples: list[CacheSample]) -> None:
    """Sample the metrics of all models until cancelled."""
    while True:
        text = await asyncio.to_thread(server.read_metrics)
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        for model in MODELS:
            labels = f'{{model="{model}",version="1"}}'
            needed, allocated = (
                int(float(values[f"attendant_{name}{labels}"]))
                for name in ("cache_needed_bytes", "cache_bytes")
            )
            samples.append(CacheSample(needed, allocated))
        await asyncio.sleep(SAMPLE_SECONDS)


async def make_calls(
    stub: "TranslationServiceAsyncStub", calls: list[translation_pb2.TranslateRequest]
) -> None:
    """Make all calls, `CONCURRENCY` concurrently."""
    queue = iter(calls)

    async def caller() -> None:
        for request in queue:
            await stub.Translate(request)

    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))


async def run(arguments: argparse.Namespace) -> None:
    """Warm up, make the calls, wait, and report."""
    samples: list[CacheSample] = []
    models = f"--models={','.join(MODELS)}"
    with running_server(models, *arguments.server_flags) as server:
        async with open_channel(server) as channel:
            stub: TranslationServiceAsyncStub = TranslationServiceStub(channel)
            for model in MODELS:
                texts = ["The weather is fine today."]
                await stub.Translate(translation_pb2.TranslateRequest(texts=texts, model=model))
            before = server.resident_bytes()
            sampling = asyncio.create_task(sample_caches(server, samples))
            await make_calls(stub, requests(arguments.data_dir))
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling
            peak = server.resident_bytes()
            await asyncio.sleep(SETTLE_SECONDS)
            after = server.resident_bytes()
    most = max(sample.excess_bytes for sample in samples)
    figures = {
        "samples": len(samples),
        "samples beyond 1.5 x need + 8 MB": sum(s.excess_bytes > MAX_EXCESS_BYTES for s in samples),
        "most bytes beyond 1.5 x need": most,
        "most bytes needed": max(sample.needed_bytes for sample in samples),
        "most bytes allocated": max(sample.allocated_bytes for sample in samples),
        "resident bytes before, at the end, after": [before, peak, after],
        "after over before": after / before,
    }
    report("memory", figures)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
