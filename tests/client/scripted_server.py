"""A real gRPC server of the attendant contract without models, for tests of the client.

It "translates" to upper case, and fails as the test's script demands.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from attendant.v1 import (
    attention_pb2,
    embedding_pb2,
    embedding_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    model_control_pb2,
    model_control_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    text_pb2,
    translation_pb2,
    translation_pb2_grpc,
)
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.client.script import EMPTY, FaultInterceptor, Script, error_of, tokens_of
from tests.client.scripted_embedder import Embedder
from tests.client.scripted_models import INFOS, description_of

TIMINGS = text_pb2.Timings(queue=Duration(nanos=5_000_000), encode=Duration(seconds=1))
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

    def BulkTranslate(self, requests, context) -> Iterator[Any]:
        self._script.watch(context)
        first = next(requests)
        self._script.requests.append(first)
        options = first.settings.options
        context.send_initial_metadata(())
        for request in requests:
            for texts in self._script.answered_together(request.texts, context):
                answer = translation_pb2.TranslateResponse(
                    translations=[translation_of(each.text, options) for each in texts],
                    model="upper/1",
                )
                yield self._script.answer(
                    translation_pb2.BulkTranslateRequest(texts=texts),
                    translation_pb2.BulkTranslateResponse(
                        ids=[each.id for each in texts], answer=answer
                    ),
                    context,
                )

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

    def GetAttention(self, request, context):
        """Source tokens are words, the target is the text in upper case, and weights are even."""
        target = request.target if request.HasField("target") else request.text.upper()
        source, written = tokens_of(request.text), tokens_of(target)
        response = attention_pb2.GetAttentionResponse(
            model=request.model or "upper/1",
            target=target,
            source_tokens=source,
            target_tokens=written,
            decoder_tokens=[text_pb2.Token(id=1, text="<s>", special=True), *written[:-1]],
            encoder=even_weights(len(source), len(source)),
            decoder=even_weights(len(written), len(written)),
            cross=even_weights(len(written), len(source)),
        )
        return self._script.answer(request, response, context)


def even_weights(num_queries: int, num_keys: int) -> attention_pb2.AttentionWeights:
    """The weights of two layers with two heads; the first key of the last head has all weight."""
    weights = np.full((2, 2, num_queries, num_keys), 1 / num_keys, "<f4")
    weights[-1, -1] = np.eye(num_keys)[0]
    tensor = embedding_pb2.Tensor(
        data=weights.tobytes(), shape=weights.shape, dtype=embedding_pb2.DATA_TYPE_FLOAT32
    )
    return attention_pb2.AttentionWeights(weights=tensor, num_heads=[2, 2])


class Linguist(language_pb2_grpc.LanguageServiceServicer):
    """Takes each letter of a text for a language."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def DetectLanguage(self, request, context):
        response = language_pb2.DetectLanguageResponse()
        for text in request.texts:
            result = response.results.add()
            for letter, number in Counter(text).most_common(request.max_results or 1):
                result.languages.add(language=letter, probability=number / len(text))
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
    language_pb2_grpc.add_LanguageServiceServicer_to_server(Linguist(script), server)
    model_control_pb2_grpc.add_ModelControlServiceServicer_to_server(Controller(script), server)
    script.health.set("attendant.v1.TranslationService", health_pb2.HealthCheckResponse.SERVING)
    script.health.set("attendant.v1.EmbeddingService", health_pb2.HealthCheckResponse.NOT_SERVING)
    if has_health:
        health_pb2_grpc.add_HealthServicer_to_server(script.health, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"{address.rpartition(':')[0]}:{port}"
