"""A real gRPC server of the attendant contract without models, for tests of the client.

It "translates" to upper case, and fails as the test's script demands.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from attendant.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    model_control_pb2,
    model_control_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    text_pb2,
    translation_pb2,
    translation_pb2_grpc,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_status import rpc_status

from tests.client.scripted_models import INFOS, description_of

EMPTY = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="the text is empty")
TIMINGS = text_pb2.Timings(queue=Duration(nanos=5_000_000), encode=Duration(seconds=1))
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure of one call before it reaches its service."""

    code: int
    message: str = "as scripted"
    retry_delay_seconds: float | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()

    def abort(self, context: grpc.ServicerContext) -> None:
        if self.retry_delay_seconds is None:
            context.set_trailing_metadata(self.metadata)
            context.abort(CODES[self.code], self.message)
        delay = Duration()
        delay.FromNanoseconds(int(self.retry_delay_seconds * 1e9))
        detail = AnyMessage()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code, message=self.message, details=[detail])
        context.abort_with_status(rpc_status.to_status(status))


@dataclass(slots=True)
class Script:
    """The faults that the server must produce, and the requests that it received."""

    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    time_left: list[float] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    reached: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    change: Callable[[Any], None] | None = None
    max_texts: int | None = None
    health: HealthServicer = field(default_factory=HealthServicer)

    def answer(self, request: Any, response: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        self.reached.set()
        self.time_left.append(context.time_remaining())
        self.peers.add(context.peer())
        self._check_count(request, context)
        if "slow" in str(request):
            self.watch(context)
            self.ended.wait(30)
        if self.change is not None:
            self.change(response)
        return response

    def _check_count(self, request: Any, context: grpc.ServicerContext) -> None:
        names = ("queries", "texts", "pairs", "documents")
        texts: Any = next(filter(None, (getattr(request, name, ()) for name in names)), ())
        if self.max_texts is not None and len(texts) > self.max_texts:
            detail, limits = AnyMessage(), {"max_texts": str(self.max_texts)}
            detail.Pack(error_details_pb2.ErrorInfo(reason="CALL_TOO_LARGE", metadata=limits))
            code, message = code_pb2.INVALID_ARGUMENT, f"texts: at most {self.max_texts}"
            status = status_pb2.Status(code=code, message=message, details=[detail])
            context.abort_with_status(rpc_status.to_status(status))

    def watch(self, context: grpc.ServicerContext) -> None:
        """Set `ended` as soon as the call has ended for any reason."""
        if not context.add_callback(self.ended.set):
            self.ended.set()


class FaultInterceptor(grpc.ServerInterceptor):
    """Applies the next fault of the script to the next call."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def intercept_service(self, continuation, details):
        self._script.calls.append(details.method.rpartition("/")[2])
        self._script.metadata.append(dict(details.invocation_metadata))
        handler = continuation(details)
        if not self._script.faults or handler is None:
            return handler
        fault = self._script.faults.pop(0)

        def fail(request: Any, context: grpc.ServicerContext) -> None:
            fault.abort(context)

        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(fail, handler.request_deserializer, handler.response_serializer)


def error_of(text: str) -> status_pb2.Status | None:
    return None if text.strip() else EMPTY


LINK = translation_pb2.WordAlignment(
    source_start=0, source_end=1, target_start=0, target_end=1, weight=0.5
)


def translation_of(
    text: str, options: translation_pb2.TranslateOptions, is_aligned: bool = False
) -> translation_pb2.Translation:
    if not text.strip():
        return translation_pb2.Translation(error=EMPTY)
    hypotheses = [
        translation_pb2.Hypothesis(
            text=text.upper() + "!" * rank,
            score=-0.5 * (rank + 1),
            tokens=[translation_pb2.OutputToken(id=7, text=text, log_probability=-0.5)]
            * options.return_tokens,
            finish_reason=translation_pb2.FINISH_REASON_STOP,
            alignments=[LINK] * is_aligned,
        )
        for rank in range(options.num_hypotheses or 1)
    ]
    return translation_pb2.Translation(
        hypotheses=hypotheses, num_source_tokens=len(text.split()) + 1
    )


def tokens_of(text: str) -> list[text_pb2.Token]:
    tokens, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        end = start + len(word)
        tokens.append(text_pb2.Token(id=len(word), text=word, start=start, end=end))
        start = end
    return [*tokens, text_pb2.Token(id=1, text="</s>", start=start, end=start, special=True)]


def tensor_of(values: Any) -> embedding_pb2.Tensor:
    array = np.asarray(values, dtype="<f4")
    return embedding_pb2.Tensor(
        data=array.tobytes(), shape=array.shape, dtype=embedding_pb2.DATA_TYPE_FLOAT32
    )


def vector_of(text: str) -> list[float]:
    """One component for the length and one for each of two letters."""
    return [float(len(text)), float(text.count("a")), float(text.count("b"))]


def cosine_of(*texts: str) -> float:
    a, b = (np.array(vector_of(text)) for text in texts)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


class Translator(translation_pb2_grpc.TranslationServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Translate(self, request, context):
        response = translation_pb2.TranslateResponse(
            translations=[
                translation_of(text, request.options, request.return_alignments)
                for text in request.texts
            ],
            model=request.model or "upper/1",
            token_counts=text_pb2.TokenCounts(num_input_tokens=3, num_output_tokens=4),
            timings=TIMINGS,
        )
        if request.truncation == text_pb2.TRUNCATION_RIGHT:
            for translation in response.translations:
                translation.truncation.num_original_tokens = 9
                translation.truncation.num_kept_tokens = 5
                translation.truncation.truncation = request.truncation
        return self._script.answer(request, response, context)

    def StreamTranslate(self, request, context) -> Iterator[Any]:
        self._script.watch(context)
        for word in request.text.upper().split()[:-1]:
            yield translation_pb2.StreamTranslateResponse(delta=f"{word} ")
        if "breaks" in request.text:
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken in the middle")
        response = translation_pb2.StreamTranslateResponse(
            delta=request.text.upper().split()[-1],
            translation=translation_of(request.text, request.options, request.return_alignments),
            model="upper/1",
        )
        yield self._script.answer(request, response, context)

    def Score(self, request, context):
        scores = [
            translation_pb2.TranslationScore(error=error)
            if (error := error_of(pair.target))
            else translation_pb2.TranslationScore(
                score=-1.0,
                log_probability=-2.0,
                log_probabilities=[-0.5, -1.5] * request.return_tokens,
                tokens=tokens_of(pair.target) if request.return_tokens else (),
                num_source_tokens=3,
                alignments=[LINK] * request.return_alignments,
            )
            for pair in request.pairs
        ]
        response = translation_pb2.ScoreResponse(scores=scores, model="upper/1")
        return self._script.answer(request, response, context)


class Embedder(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Embed(self, request, context):
        results = [
            embedding_pb2.EmbedResult(error=error)
            if (error := error_of(text))
            else embedding_pb2.EmbedResult(num_tokens=len(tokens_of(text)))
            for text in request.texts
        ]
        vectors = [vector_of(text) if text.strip() else [0.0] * 3 for text in request.texts]
        response = embedding_pb2.EmbedResponse(
            embeddings=tensor_of(vectors), results=results, model="vectors/1"
        )
        return self._script.answer(request, response, context)

    def EmbedTokens(self, request, context):
        results = []
        for text in request.texts:
            tokens = tokens_of(text)
            vectors = np.array([vector_of(token.text) for token in tokens])
            if len(request.layers) > 1:
                vectors = np.stack([vectors + layer for layer in request.layers])
            results.append(
                embedding_pb2.EmbedTokensResult(error=EMPTY)
                if not text.strip()
                else embedding_pb2.EmbedTokensResult(tokens=tokens, embeddings=tensor_of(vectors))
            )
        response = embedding_pb2.EmbedTokensResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def FillMask(self, request, context):
        results = [
            embedding_pb2.FillMaskResult(
                masks=[
                    embedding_pb2.FilledMask(
                        start=start,
                        end=start + len("[MASK]"),
                        candidates=[
                            embedding_pb2.MaskCandidate(id=i, text=f"word{i}", probability=0.5**i)
                            for i in range(1, (request.top_k or 5) + 1)
                        ],
                    )
                    for start in range(len(text))
                    if text.startswith("[MASK]", start)
                ]
            )
            if "[MASK]" in text
            else embedding_pb2.FillMaskResult(
                error=status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no [MASK]")
            )
            for text in request.texts
        ]
        response = embedding_pb2.FillMaskResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def Classify(self, request, context):
        """Scores the letters "a" and "b" of a text, and of the second text of a pair."""
        seconds = request.text_pairs or [""] * len(request.texts)
        results = [
            embedding_pb2.ClassifyResult(
                labels=[
                    embedding_pb2.LabelScore(label=letter, score=(text + second).count(letter))
                    for letter in "ab"[: request.top_k or 2]
                ]
            )
            if text.strip()
            else embedding_pb2.ClassifyResult(error=EMPTY)
            for text, second in zip(request.texts, seconds, strict=True)
        ]
        response = embedding_pb2.ClassifyResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def EmbedSparse(self, request, context):
        """Weighs the letters "a" (token 0) to "c" of a text by their number."""
        results = []
        for text in request.texts:
            counts = {i: text.count(letter) for i, letter in enumerate("abc")}
            ids = [i for i in counts if counts[i]][: request.max_active_dims or 3]
            result = embedding_pb2.EmbedSparseResult(
                token_ids=ids,
                weights=[counts[i] for i in ids],
                tokens=["abc"[i] for i in ids if request.return_tokens],
                num_tokens=len(text),
            )
            failed = embedding_pb2.EmbedSparseResult(error=EMPTY)
            results.append(result if text.strip() else failed)
        response = embedding_pb2.EmbedSparseResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def Similarity(self, request, context):
        """Compares the vectors of letters."""
        texts = [each for each in enumerate(request.texts) if each[1].strip()]
        results = []
        for query in request.queries:
            scores = {i: cosine_of(query, text) for i, text in texts if query.strip()}
            best = sorted(scores, key=lambda i: -scores[i])[: request.top_k or None]
            result = embedding_pb2.SimilarityResult(indices=best, scores=[scores[i] for i in best])
            failed = embedding_pb2.SimilarityResult(error=EMPTY)
            results.append(result if query.strip() else failed)
        response = embedding_pb2.SimilarityResponse(
            results=results,
            texts=[
                embedding_pb2.EmbedResult(error=None if text.strip() else EMPTY)
                for text in request.texts
            ],
            model="vectors/1",
        )
        return self._script.answer(request, response, context)

    def Rerank(self, request, context):
        """Counts the query in each document."""
        results = [
            embedding_pb2.RerankResult(index=i, score=text.count(request.query))
            if text.strip()
            else embedding_pb2.RerankResult(index=i, error=EMPTY)
            for i, text in enumerate(request.documents)
        ]
        results.sort(key=lambda result: (result.HasField("error"), -result.score))
        response = embedding_pb2.RerankResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)


class Librarian(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def ListModels(self, request, context):
        return self._script.answer(request, model_pb2.ListModelsResponse(models=INFOS), context)

    def GetModel(self, request, context):
        infos = [info for info in INFOS if info.name == request.model]
        if not infos:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {request.model!r}")
        response = description_of(infos[0])
        return self._script.answer(request, response, context)

    def Tokenize(self, request, context):
        response = model_pb2.TokenizeResponse(
            results=[model_pb2.TokenizeResult(tokens=tokens_of(text)) for text in request.texts],
            model="upper/1",
        )
        return self._script.answer(request, response, context)


class Controller(model_control_pb2_grpc.ModelControlServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def LoadModel(self, request, context):
        response = model_control_pb2.LoadModelResponse(model=INFOS[0])
        return self._script.answer(request, response, context)

    def UnloadModel(self, request, context):
        response = model_control_pb2.UnloadModelResponse(model="upper/1")
        return self._script.answer(request, response, context)


def start_server(
    script: Script, address: str = "127.0.0.1:0", has_health: bool = True
) -> tuple[grpc.Server, str]:
    """Start the server, by default on a free port; return it and its address."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers=4),
        interceptors=[FaultInterceptor(script)],
        options=[("grpc.so_reuseport", 0)],
    )
    translation_pb2_grpc.add_TranslationServiceServicer_to_server(Translator(script), server)
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(Embedder(script), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(Librarian(script), server)
    model_control_pb2_grpc.add_ModelControlServiceServicer_to_server(Controller(script), server)
    script.health.set("attendant.v1.TranslationService", health_pb2.HealthCheckResponse.SERVING)
    script.health.set("attendant.v1.EmbeddingService", health_pb2.HealthCheckResponse.NOT_SERVING)
    if has_health:
        health_pb2_grpc.add_HealthServicer_to_server(script.health, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"{address.rpartition(':')[0]}:{port}"
