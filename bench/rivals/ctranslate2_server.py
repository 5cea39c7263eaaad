"""A CTranslate2 server with attendant's contract, so that one client measures both servers.

    python -m bench.rivals.ctranslate2_server --model build/bench/ctranslate2/en-de-3 \\
        --tokenizer bundles/en-de/3/tokenizer.json --compute-type int8 --port 50061

A well-built server on CTranslate2: gRPC on asyncio. A batch takes the texts that wait when a worker
is free; no batch waits for more texts. The number of batches in flight is the number of CTranslate2
workers, or one more to keep workers busy. CTranslate2 sorts a batch by length and splits it by
tokens, and each text is answered as soon as its part is done. Answers hold only texts and counts.
"""

import argparse
import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ctranslate2
import grpc
import uvloop
from attendant.v1 import translation_pb2 as pb
from tokenizers import Tokenizer

MAX_OUTPUT_TOKENS = 256
MAX_OUTPUT_RATIO, EXTRA_TOKENS = 3, 16
Search = tuple[int, int]
"""Beam size and limit of output tokens. All texts of a batch must have the same values."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A text in the queue."""

    tokens: list[str]
    search: Search
    answer: "asyncio.Future[list[str]]"


class Batcher:
    """Passes queued texts to CTranslate2 as soon as a worker can take them."""

    def __init__(
        self, translator: ctranslate2.Translator, max_texts: int, max_tokens: int, in_flight: int
    ) -> None:
        self._translator = translator
        self._max_texts, self._max_tokens = max_texts, max_tokens
        self._waiting: deque[Waiting] = deque()
        self._num_free = in_flight
        self._threads = ThreadPoolExecutor(in_flight)

    async def translate(self, tokens: list[str], search: Search) -> list[str]:
        """The best hypothesis without the end token."""
        self._loop = asyncio.get_running_loop()
        waiting = Waiting(tokens, search, self._loop.create_future())
        self._waiting.append(waiting)
        # Run after the current callback, when all texts of the call are in the queue.
        self._loop.call_soon(self._start_batches)
        return await waiting.answer

    def _start_batches(self) -> None:
        while self._num_free and self._waiting:
            self._num_free -= 1
            batch = list(self._take())
            self._threads.submit(self._run, batch)

    def _take(self) -> Iterator[Waiting]:
        search = self._waiting[0].search
        for _ in range(self._max_texts):
            if not self._waiting or self._waiting[0].search != search:
                return
            yield self._waiting.popleft()

    def _run(self, batch: list[Waiting]) -> None:
        batch.sort(key=lambda waiting: len(waiting.tokens), reverse=True)  # the order of parts
        beam_size, max_output_tokens = batch[0].search
        # The limit of attendant against repetition; CTranslate2 has one limit for a whole batch.
        longest = MAX_OUTPUT_RATIO * len(batch[0].tokens) + EXTRA_TOKENS
        results = self._translator.translate_batch(
            [waiting.tokens for waiting in batch],
            max_batch_size=self._max_tokens,
            batch_type="tokens",
            beam_size=beam_size,
            max_decoding_length=min(max_output_tokens, longest),
            asynchronous=True,
        )
        for waiting, result in zip(batch, results, strict=True):
            hypothesis = result.result().hypotheses[0]
            self._loop.call_soon_threadsafe(self._answer, waiting, hypothesis)
        self._loop.call_soon_threadsafe(self._end_batch)

    def _answer(self, waiting: Waiting, hypothesis: list[str]) -> None:
        if not waiting.answer.done():
            waiting.answer.set_result(hypothesis)

    def _end_batch(self) -> None:
        self._num_free += 1
        self._start_batches()


class TranslationService:
    """Implements only ``Translate``; the other methods answer UNIMPLEMENTED."""

    def __init__(self, tokenizer: Tokenizer, batcher: Batcher) -> None:
        self._tokenizer, self._batcher = tokenizer, batcher

    async def translate(self, request: pb.TranslateRequest, _: Any) -> pb.TranslateResponse:
        """Translate all texts of a call."""
        search = (
            max(request.options.beam_size, 1),
            request.options.max_output_tokens or MAX_OUTPUT_TOKENS,
        )
        encoded = self._tokenizer.encode_batch(list(request.texts))
        hypotheses = await asyncio.gather(
            *(self._batcher.translate(encoding.tokens, search) for encoding in encoded)
        )
        response = pb.TranslateResponse()
        for hypothesis in hypotheses:
            text = self._tokenizer.decoder.decode(hypothesis)
            response.translations.add().hypotheses.add(text=text)
        response.token_counts.num_input_tokens = sum(len(e.tokens) for e in encoded)
        # Count the end token, as attendant does.
        num_output_tokens = sum(min(len(h) + 1, search[1]) for h in hypotheses)
        response.token_counts.num_output_tokens = num_output_tokens
        return response


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until the process ends."""
    translator = ctranslate2.Translator(
        arguments.model,
        device="cpu",
        compute_type=arguments.compute_type,
        inter_threads=arguments.inter_threads,
        intra_threads=arguments.intra_threads,
    )
    in_flight = arguments.in_flight or arguments.inter_threads
    batcher = Batcher(translator, arguments.max_texts, arguments.max_batch_tokens, in_flight)
    server = grpc.aio.server()
    service = TranslationService(Tokenizer.from_file(arguments.tokenizer), batcher)
    translate = grpc.unary_unary_rpc_method_handler(
        service.translate, pb.TranslateRequest.FromString, pb.TranslateResponse.SerializeToString
    )
    methods = {"Translate": translate}
    handler = grpc.method_handlers_generic_handler("attendant.v1.TranslationService", methods)
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    await server.start()
    print(f"serving on port {arguments.port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--inter-threads", type=int, default=1, help="number of workers")
    parser.add_argument("--intra-threads", type=int, default=2, help="threads per worker")
    parser.add_argument("--in-flight", type=int, default=0, help="batches; 0: as inter-threads")
    parser.add_argument("--max-texts", type=int, default=64, help="texts per batch")
    parser.add_argument("--max-batch-tokens", type=int, default=2048, help="padded, per part")
    parser.add_argument("--port", type=int, default=50061)
    uvloop.run(serve(parser.parse_args()))  # as our own server does
