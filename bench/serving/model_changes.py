"""Calls that fail, and latency, while a server loads and unloads versions of a model.

    python -m bench.serving.model_changes --data-dir DATA_DIR --changes 20

Sends texts all the time, by the name of the model alone. Meanwhile a second version appears in the
folder of bundles and disappears again, with a SIGHUP each time. Prints the calls sent and failed,
the seconds from SIGHUP to the first answer of the new version, and the latency with and without
changes.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc
from attendant.v1.translation_pb2 import TranslateRequest
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.loads import LoadResult, Refused, closed_loop
from bench.reporting import report, spread
from bench.servers import RunningServer, open_channel, running_server
from bench.texts import sample_texts

MODEL = "en-de"
CONCURRENCY = 16
NUM_TEXTS = 512
PAUSE_SECONDS = 1.0


class Caller:
    """Translates by the name of the model, and counts the answers of each version."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = TranslationServiceStub(channel)
        self.answers: Counter[str] = Counter()

    async def send(self, text: str) -> int:
        """Translate one text; returns its number of output tokens."""
        try:
            response = await self._stub.Translate(TranslateRequest(model=MODEL, texts=[text]))
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name) from error
        self.answers[response.model] += 1
        return int(response.token_counts.num_output_tokens)

    async def wait_for(self, model: str, answers: int = 1) -> None:
        """Wait until a version has given some more answers."""
        until = self.answers[model] + answers
        while self.answers[model] < until:
            await asyncio.sleep(0.001)


def add_version(bundle: Path, version: str) -> Path:
    """Put a copy of a bundle beside it, as another version; returns its folder."""
    staged = bundle.parent / ".new"
    shutil.copytree(bundle, staged)
    file = staged / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8")) | {"version": version}
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return staged.rename(bundle.parent / version)


async def change(
    server: RunningServer, caller: Caller, bundle: Path, num_changes: int
) -> list[float]:
    """Add and remove a version; returns the seconds from each SIGHUP to the first new answer."""
    seconds = []
    next_version = str(int(bundle.name) + 1)
    for _ in range(num_changes):
        added = add_version(bundle, next_version)
        started = time.perf_counter()
        os.kill(server.pid, signal.SIGHUP)
        await caller.wait_for(f"{MODEL}/{next_version}")
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE_SECONDS)
        shutil.rmtree(added)
        os.kill(server.pid, signal.SIGHUP)
        await caller.wait_for(f"{MODEL}/{bundle.name}", 100)
        await asyncio.sleep(PAUSE_SECONDS)
    return seconds


async def run(arguments: argparse.Namespace) -> None:
    """Measure without changes, then with them."""
    texts = sample_texts(arguments.data_dir, "mixed", NUM_TEXTS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bundle = max((Path("bundles") / MODEL).iterdir(), key=lambda each: int(each.name))
        bundle = Path(shutil.copytree(bundle, root / MODEL / bundle.name))
        with running_server(f"--bundles={root}", *arguments.server_flags) as server:
            async with open_channel(server) as channel:
                caller = Caller(channel)
                await closed_loop(caller.send, texts, CONCURRENCY)
                quiet = await closed_loop(caller.send, texts, CONCURRENCY, seconds=10)
                changing = asyncio.create_task(change(server, caller, bundle, arguments.changes))
                changed = LoadResult()
                while not changing.done():
                    part = await closed_loop(caller.send, texts, CONCURRENCY, seconds=1)
                    changed.latencies += part.latencies
                    changed.failures += part.failures
                seconds = await changing
    figures = {
        "calls": len(changed.latencies) + changed.failures.total(),
        "failed": dict(changed.failures),
        "seconds from SIGHUP to the new version": spread(seconds),
        "p50 ms": [1e3 * result.latency(50) for result in (quiet, changed)],
        "p99 ms": [1e3 * result.latency(99) for result in (quiet, changed)],
    }
    report("model_changes", figures, "\n".join(f"{name}: {figures[name]}" for name in figures))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument(
        "--changes", type=int, default=20, help="times that a version comes and goes"
    )
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
