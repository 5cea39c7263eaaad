"""Calls translation servers, attendant or a rival with the same contract, through the bare stub.

Retries would hide refused calls. Parsing only protobuf leaves the processors to the servers.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from attendant.v1 import translation_pb2 as pb
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.loads import Refused, in_calls
from bench.servers import Metadata, RunningServer, open_channel

if TYPE_CHECKING:
    from attendant.v1.translation_pb2_grpc import TranslationServiceAsyncStub

TIMEOUT_SECONDS = 300
TEXTS_PER_CALL = 32


class Caller:
    """Calls one server with one kind of search, over one connection."""

    def __init__(
        self, stub: "TranslationServiceAsyncStub", beam_size: int, metadata: Metadata = ()
    ) -> None:
        self._translate = stub.Translate
        self._metadata = metadata
        self._options = pb.TranslateOptions(beam_size=beam_size)

    async def send(self, text: str) -> int:
        """Translate one text; returns its number of output tokens."""
        return await self.send_all([text])

    async def send_all(self, texts: Sequence[str]) -> int:
        """Translate several texts in one call; returns their number of output tokens."""
        response = await self._call(texts)
        if any(translation.HasField("error") for translation in response.translations):
            raise Refused("error of a text")
        return response.token_counts.num_output_tokens

    async def translate(self, texts: Sequence[str]) -> list[str]:
        """The translations of any number of texts, empty for texts that failed."""
        responses = [await self._call(call) for call in in_calls(texts, TEXTS_PER_CALL)]
        translations = [each for response in responses for each in response.translations]
        return [t.hypotheses[0].text if t.hypotheses else "" for t in translations]

    async def _call(self, texts: Sequence[str]) -> pb.TranslateResponse:
        request = pb.TranslateRequest(texts=texts, options=self._options)
        try:
            response: pb.TranslateResponse = await self._translate(
                request, timeout=TIMEOUT_SECONDS, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name) from error
        return response


@asynccontextmanager
async def translation_caller(server: RunningServer, beam_size: int) -> AsyncIterator[Caller]:
    """A caller connected to a server while the block runs."""
    async with open_channel(server) as channel:
        stub: TranslationServiceAsyncStub = TranslationServiceStub(channel)
        yield Caller(stub, beam_size, server.metadata)
