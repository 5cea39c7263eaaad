"""Calls the embedding server through the bare stub, without retries that would hide failures."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import numpy as np
from attendant.v1 import embedding_pb2, text_pb2
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub

from bench.embedding.worker import FloatArray, load
from bench.loads import LoadResult, Refused, in_calls
from bench.servers import Metadata, RunningServer, open_channel

if TYPE_CHECKING:
    from attendant.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub

TIMEOUT_SECONDS = 300
TEXTS_PER_CALL, CONCURRENT_CALLS = 128, 4
"""Calls of many texts, the best load for the server."""


class Caller:
    """Calls one server over one connection."""

    def __init__(self, stub: "EmbeddingServiceAsyncStub", metadata: Metadata = ()) -> None:
        self._embed, self._metadata = stub.Embed, metadata

    async def measure(
        self, calls: Sequence[Sequence[str]], concurrency: int = 1, calls_per_second: float = 0.0
    ) -> LoadResult:
        """Apply a `load` to the server."""
        return await load(self.embed, calls, concurrency, calls_per_second)

    async def vectors(self, texts: Sequence[str]) -> FloatArray:
        """Normalized vectors (texts, d) of any number of texts."""
        return np.concatenate([await self.embed(c) for c in in_calls(texts, TEXTS_PER_CALL)])

    async def send(self, texts: Sequence[str]) -> int:
        """Make one call; returns its number of texts. Raises Refused."""
        return len(await self.embed(texts))

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """The vectors (texts, d) of one call. Raises Refused."""
        request = embedding_pb2.EmbedRequest(texts=texts, truncation=text_pb2.TRUNCATION_RIGHT)
        try:
            response = await self._embed(request, timeout=TIMEOUT_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name) from error
        if any(result.HasField("error") for result in response.results):
            raise Refused("error of a text")
        tensor = response.embeddings
        return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@asynccontextmanager
async def embedding_caller(server: RunningServer) -> AsyncIterator[Caller]:
    """A caller connected to a server while the block runs."""
    async with open_channel(server) as channel:
        stub: EmbeddingServiceAsyncStub = EmbeddingServiceStub(channel)
        yield Caller(stub, server.metadata)
