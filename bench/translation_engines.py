"""What is measured on translations: servers of our contract, ours and rivals', and their caller.

The client is the bare stub: no retries, so that a refused call is seen, and no parsing beyond
protobuf, so that it takes little of the processors that the servers need.
"""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from attendant.v1 import translation_pb2 as pb
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.loads import Refused
from bench.serving import RunningServer, free_port, running_program

if TYPE_CHECKING:
    from attendant.v1.translation_pb2_grpc import TranslationServiceAsyncStub

TIMEOUT_SECONDS = 300


class Caller:
    """Calls of one kind of search on one server, over one connection."""

    def __init__(self, stub: "TranslationServiceAsyncStub", model: str, beam_size: int) -> None:
        self._translate = stub.Translate
        self._model, self._options = model, pb.TranslateOptions(beam_size=beam_size)

    async def send(self, text: str) -> int:
        """Translate one text; the number of its output tokens."""
        return await self.send_all([text])

    async def send_all(self, texts: Sequence[str]) -> int:
        """Translate several texts in one call; the number of their output tokens."""
        response = await self._call(texts)
        if any(translation.HasField("error") for translation in response.translations):
            raise Refused("error of a text")
        return response.token_counts.num_output_tokens

    async def translate(self, texts: Sequence[str]) -> list[str]:
        """The translations of many texts."""
        response = await self._call(texts)
        return [t.hypotheses[0].text if t.hypotheses else "" for t in response.translations]

    async def _call(self, texts: Sequence[str]) -> pb.TranslateResponse:
        request = pb.TranslateRequest(model=self._model, texts=texts, options=self._options)
        try:
            response: pb.TranslateResponse = await self._translate(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name) from error
        return response


@asynccontextmanager
async def connected(
    server: RunningServer, beam_size: int, model: str = ""
) -> AsyncIterator[Caller]:
    """A caller of a server."""
    async with grpc.aio.insecure_channel(
        server.target, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub: TranslationServiceAsyncStub = TranslationServiceStub(channel)
        yield Caller(stub, model, beam_size)


@dataclass(frozen=True, slots=True)
class CTranslate2Setting:
    """How CTranslate2's server is run."""

    compute_type: str
    inter_threads: int
    intra_threads: int
    max_texts: int = 64
    max_batch_tokens: int = 2048
    in_flight: int = 0

    def __str__(self) -> str:
        threads = f"{self.inter_threads}×{self.intra_threads} threads"
        in_flight = self.in_flight or self.inter_threads
        return (
            f"{self.compute_type}, {threads}, {self.max_texts} texts, "
            f"{self.max_batch_tokens} tokens, {in_flight} in flight"
        )

    def flags(self) -> list[str]:
        """As flags of `bench.rivals.ctranslate2_server`."""
        names = (*self.__slots__,)
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in names]


@contextmanager
def running_ctranslate2(
    model: Path, tokenizer: Path, setting: CTranslate2Setting
) -> Iterator[RunningServer]:
    """CTranslate2's server in a process of its own, ready when the block begins."""
    port = free_port()
    command = [sys.executable, "-m", "bench.rivals.ctranslate2_server", *setting.flags()]
    command += [f"--model={model}", f"--tokenizer={tokenizer}", f"--port={port}"]
    with running_program(command) as pid:
        yield RunningServer(f"127.0.0.1:{port}", pid=pid)
