"""The calls of a soak: good, impatient, broken and abandoned ones, of clients that come and go."""

import asyncio
import random
import re
from typing import Any

import grpc
from attendant.v1 import embedding_pb2, translation_pb2
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.serving.soak_judgement import Soak

SUBJECTS = ("The dog", "My old friend", "A teacher from the city", "Nobody in this house", "She")
ENDINGS = (
    "sees the king.",
    "sees the dog.",
    "has read the book that you gave me last year.",
    "would like to go to the station early in the morning, if the weather is good.",
    "sleeps.",
)
TEXTS = [f"{subject} {ending}" for subject in SUBJECTS for ending in ENDINGS]
NUM_CHANNELS, CALLS_OF_A_CHANNEL = 8, 200
LOST_SECONDS = 120.0
"""A call without an end after this time, twice the server's own limit, is lost."""
KINDS = {
    "translate": 50,
    "stream": 15,
    "embed": 17,
    "cancel": 8,
    "deadline": 5,
    "bad": 4,
    "leave": 1,
}
"""Kinds of calls and their shares in percent."""
TRANSLATE = "/attendant.v1.TranslationService/Translate"
TOLERANCE = 1e-4
MAX_DETAILS = 100
"""Characters of the message of a failure that are kept."""


class Callers:
    """Makes random calls and counts their ends in ``soak``."""

    def __init__(self, target: str, rng: random.Random) -> None:
        self._target, self.rng = target, rng
        self.soak = Soak()
        self._translations: dict[str, str] = {}
        self._vectors: dict[str, list[float]] = {}
        self._channels = [self._new_channel() for _ in range(NUM_CHANNELS)]
        self._num_calls = [0] * NUM_CHANNELS
        self._closing = set[asyncio.Task[None]]()

    async def learn(self) -> None:
        """Note the answers of texts alone; texts that the models refuse are not sent again."""
        for text in TEXTS:
            [translation] = await self._translate(self._channels[0], [text])
            if translation:
                self._translations[text] = translation
                [self._vectors[text]] = await self._embed(self._channels[0], [text])

    async def call(self) -> None:
        """Make one random call."""
        [kind] = self.rng.choices(list(KINDS), list(KINDS.values()))
        texts = self.rng.sample(list(self._vectors), self.rng.randint(1, 3))
        try:
            async with asyncio.timeout(LOST_SECONDS):
                end = await getattr(self, f"_make_{kind}")(self._channel(), texts)
        except TimeoutError:
            end = "lost"
            self.soak.failures[f"{kind}: no end"] += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                end = "refused"
            elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                end = "late"  # calls with deadlines of their own expire
            else:
                end = "failed"
                # Messages with figures would be keys without end.
                details = re.sub(r"\d+", "N", error.details() or "")[:MAX_DETAILS]
                self.soak.failures[f"{kind}: {error.code().name}: {details}"] += 1
        self.soak.calls[end] += 1

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*self._closing, *(channel.close() for channel in self._channels))

    def _new_channel(self) -> Any:
        # Channels with equal options would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        return grpc.aio.insecure_channel(self._target, options=options)

    def _channel(self) -> Any:
        """One of the clients; one that has made enough calls goes, and another comes."""
        i = self.rng.randrange(NUM_CHANNELS)
        self._num_calls[i] += 1
        if self._num_calls[i] > CALLS_OF_A_CHANNEL:
            closing = asyncio.create_task(self._channels[i].close(LOST_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._channels[i], self._num_calls[i] = self._new_channel(), 0
        return self._channels[i]

    async def _make_translate(self, channel: Any, texts: list[str]) -> str:
        found = await self._translate(channel, texts)
        return _end(found == [self._translations[text] for text in texts])

    async def _make_stream(self, channel: Any, texts: list[str]) -> str:
        request = translation_pb2.StreamTranslateRequest(text=texts[0])
        pieces = [m.delta async for m in TranslationServiceStub(channel).StreamTranslate(request)]
        return _end("".join(pieces) == self._translations[texts[0]])

    async def _make_embed(self, channel: Any, texts: list[str]) -> str:
        found = await self._embed(channel, texts)
        expected = [self._vectors[text] for text in texts]
        pairs = zip(sum(found, []), sum(expected, []), strict=True)
        return _end(all(abs(a - b) < TOLERANCE for a, b in pairs))

    async def _make_cancel(self, channel: Any, texts: list[str]) -> str:
        request = translation_pb2.TranslateRequest(texts=texts)
        call = TranslationServiceStub(channel).Translate(request)
        await asyncio.sleep(self.rng.uniform(0, 0.05))
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return "cancelled"
        return "answered"

    async def _make_deadline(self, channel: Any, texts: list[str]) -> str:
        request = translation_pb2.TranslateRequest(texts=texts)
        seconds = self.rng.uniform(0.001, 0.1)
        try:
            await TranslationServiceStub(channel).Translate(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            return "expired"
        return "answered"

    async def _make_bad(self, channel: Any, texts: list[str]) -> str:
        try:
            await channel.unary_unary(TRANSLATE)(b"\xff" + texts[0].encode())
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            return "rejected"
        return "wrong"

    async def _make_leave(self, channel: Any, texts: list[str]) -> str:
        async with self._new_channel() as leaving:
            request = translation_pb2.StreamTranslateRequest(text=texts[0])
            await TranslationServiceStub(leaving).StreamTranslate(request).wait_for_connection()
        return "left"

    async def _translate(self, channel: Any, texts: list[str]) -> list[str]:
        request = translation_pb2.TranslateRequest(texts=texts)
        answer = await TranslationServiceStub(channel).Translate(request)
        return [each.hypotheses[0].text if each.hypotheses else "" for each in answer.translations]

    async def _embed(self, channel: Any, texts: list[str]) -> list[list[float]]:
        answer = await EmbeddingServiceStub(channel).Embed(embedding_pb2.EmbedRequest(texts=texts))
        values: list[float] = list(memoryview(answer.embeddings.data).cast("f"))
        size = len(values) // len(texts)
        return [values[i : i + size] for i in range(0, len(values), size)]


def _end(is_right: bool) -> str:
    return "answered" if is_right else "wrong"
