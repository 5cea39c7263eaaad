"""What is measured on embeddings, ours and rivals', and how each is started and called.

Engines in process run in workers; servers are called from the bench's own process or, where their
client cannot live with ours, from a worker as well.
"""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import grpc
import numpy as np
from attendant.v1 import embedding_pb2
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub

from bench import loads
from bench.embedding_worker import FloatArray, running_worker
from bench.loads import LoadResult, Refused
from bench.models.encoders import Encoder
from bench.serving import RunningServer, running_server

if TYPE_CHECKING:
    from attendant.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub

TIMEOUT_SECONDS = 300
OURS, BARE_LOOP, REFERENCE = "attendant", "bare-loop", "sentence-transformers"
ENVIRONMENTS = {"infinity": "BENCH_INFINITY_PYTHON", "triton": "BENCH_TRITON_PYTHON"}
"""Variables that name the Python of the environment where a rival is installed. The names do not
begin as our settings do, since a server refuses those that it does not know."""


class System(Protocol):
    """Something that embeds texts."""

    async def closed_loop(self, calls: Sequence[Sequence[str]], concurrency: int) -> LoadResult:
        """`loads.closed_loop` of calls with one or more texts each."""

    async def poisson(self, calls: Sequence[Sequence[str]], calls_per_second: float) -> LoadResult:
        """`loads.poisson` of calls with one or more texts each."""

    async def vectors(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length 1 (texts, d)."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """How many texts one is best given at once."""

    texts_per_call: int
    concurrency: int


BULK = {
    OURS: Bulk(texts_per_call=128, concurrency=4),
    "triton": Bulk(texts_per_call=64, concurrency=4),
}
WHOLE = Bulk(texts_per_call=1 << 20, concurrency=1)
"""All texts in one call: engines in process sort them by length themselves."""


class OurServer:
    """Our server, called over the wire by the bare stub: no retries, so that refusals are seen."""

    def __init__(self, stub: "EmbeddingServiceAsyncStub") -> None:
        self._embed = stub.Embed

    async def closed_loop(self, calls: Sequence[Sequence[str]], concurrency: int) -> LoadResult:
        """`loads.closed_loop`."""
        return await loads.closed_loop(self.send, calls, concurrency)

    async def poisson(self, calls: Sequence[Sequence[str]], calls_per_second: float) -> LoadResult:
        """`loads.poisson`."""
        return await loads.poisson(self.send, calls, calls_per_second)

    async def vectors(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length 1 (texts, d)."""
        size = BULK[OURS].texts_per_call
        return np.concatenate([await self._call(c) for c in loads.in_calls(texts, size)])

    async def send(self, texts: Sequence[str]) -> int:
        """One call with these texts, for the loads; raises Refused."""
        return len(await self._call(texts))

    async def _call(self, texts: Sequence[str]) -> FloatArray:
        request = embedding_pb2.EmbedRequest(texts=texts)
        try:
            response = await self._embed(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name) from error
        tensor = response.embeddings
        return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@asynccontextmanager
async def connected(server: RunningServer) -> AsyncIterator[OurServer]:
    """A caller of a server of ours that runs already."""
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(server.target, options=options) as channel:
        stub: EmbeddingServiceAsyncStub = EmbeddingServiceStub(channel)
        yield OurServer(stub)


@asynccontextmanager
async def our_server(encoder: Encoder, precision: str, *flags: str) -> AsyncIterator[System]:
    """Our server with one model and its defaults."""
    arguments = [f"--bundles={encoder.bundles_dir}", f"--models={encoder.bundle.parent.name}"]
    with running_server(*arguments, f"--precision={precision}", *flags) as server:
        async with connected(server) as ours:
            yield ours


def start(name: str, encoder: Encoder, precision: str) -> AbstractAsyncContextManager[System]:
    """The system called ``name``, loaded and waiting while the block runs."""
    if name == OURS:
        return our_server(encoder, precision)
    python = os.environ.get(ENVIRONMENTS.get(name, ""), sys.executable)
    model = ["--model", str(encoder.hugging_face)]
    bundle = ["--bundle", str(encoder.bundle), "--precision", precision]
    modules = {
        BARE_LOOP: ["bench.embedding_bare_loop", *bundle],
        REFERENCE: ["bench.rivals.sentence_transformers_engine", *model],
        "infinity": ["bench.rivals.infinity_engine", *model],
        "triton": ["bench.rivals.triton_client", *bundle],
    }
    return running_worker([python, "-m", *modules[name]])


RIVALS = (REFERENCE, "infinity", "triton")
