"""EmbeddingService: Embed, EmbedTokens and FillMask."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from attendant.v1 import embedding_pb2, embedding_pb2_grpc, text_pb2
from attendant_manifest.sizes import num_layers
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application import validation
from attendant_server.application.catalog import EMBEDDING, Catalog, ServedModel
from attendant_server.application.tokenization import (
    TokenizationOptions,
    TokenizationRunner,
    Truncation,
    truncation_report,
)
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits
from attendant_server.engine.calls import EmbedCall, FillMaskCall, MaskCandidates
from attendant_server.errors import InvalidRequest, ModelWithoutHead
from attendant_server.grpc.services.responses import (
    CallDeadline,
    Context,
    fault,
    good,
    token_message,
)
from attendant_server.tokenizer import TextTokenizer, Token, TokenizedText

TokenizedOrError = TokenizedText | InvalidRequest
FLOAT_BYTES = 4
OUTPUTS = {
    embedding_pb2.POOLING_MEAN: "mean_pooled",
    embedding_pb2.POOLING_CLS: "cls_pooled",
    embedding_pb2.POOLING_MAX: "max_pooled",
}


class EmbeddingService(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Answers for all embedding models."""

    def __init__(
        self, catalog: Catalog, tokenization: TokenizationRunner, limits: RequestLimits
    ) -> None:
        self._catalog, self._tokenization, self._limits = catalog, tokenization, limits

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse:
        """One vector for each text."""
        model = self._checked_model(request)
        manifest = model.manifest
        output = OUTPUTS[validation.pooling(request.pooling, manifest.embedding.pooling)]
        d_model = manifest.architecture.d_model
        self._limits.check_response("texts", len(request.texts) * d_model * FLOAT_BYTES)
        tokenization = _tokenization_options(model, model.source_tokenizer, request.truncation)
        call_deadline = self._call_deadline(model, context)

        texts = await self._tokenization.tokenize(tokenization, TEXTS, request.texts)
        call = EmbedCall(
            [text.token_ids for text in good(texts)], (output,), call_deadline.deadline
        )
        results = await model.answer(call) if call.texts else []

        vectors = np.zeros((len(texts), d_model), np.float32)  # (texts, d)
        is_good = [not isinstance(text, InvalidRequest) for text in texts]
        if results:
            vectors[is_good] = np.stack([result[output] for result in results])
        if request.normalize if request.HasField("normalize") else manifest.embedding.normalize:
            _normalize(vectors)
        return embedding_pb2.EmbedResponse(
            embeddings=_tensor(vectors),
            results=[_embed_result(text, tokenization.truncation) for text in texts],
            model=model.bundle.key,
            token_counts=_counts(texts),
            timings=call_deadline.timings(),
        )

    async def EmbedTokens(
        self, request: embedding_pb2.EmbedTokensRequest, context: Context
    ) -> embedding_pb2.EmbedTokensResponse:
        """One vector for each token of each text, from any layers."""
        model = self._checked_model(request)
        architecture = model.manifest.architecture
        layers = validation.layers(request.layers, num_layers(architecture.encoder))
        tokenization = _tokenization_options(model, model.source_tokenizer, request.truncation)
        call_deadline = self._call_deadline(model, context)

        texts = await self._tokenization.tokenize(tokenization, TEXTS, request.texts)
        token_bytes = TOKEN_BYTES + len(layers) * architecture.d_model * FLOAT_BYTES
        num_tokens = sum(len(text) for text in good(texts))
        field = "layers" if request.layers else "texts"
        self._limits.check_response(field, num_tokens * token_bytes)
        outputs = tuple(f"hidden_{layer}" for layer in layers)
        call = EmbedCall([text.token_ids for text in good(texts)], outputs, call_deadline.deadline)
        results = await model.answer(call) if call.texts else []

        return await self._tokenization.build(
            num_tokens,
            lambda: embedding_pb2.EmbedTokensResponse(
                results=_token_results(texts, results, outputs, tokenization.truncation),
                model=model.bundle.key,
                token_counts=_counts(texts),
                timings=call_deadline.timings(),
            ),
        )

    async def FillMask(
        self, request: embedding_pb2.FillMaskRequest, context: Context
    ) -> embedding_pb2.FillMaskResponse:
        """The likeliest tokens for every mask."""
        model = self._checked_model(request)
        manifest = model.manifest
        top_k = validation.top_k(
            request, self._limits, manifest.architecture.source_embeddings.vocab_size
        )
        if not model.bundle.has_graph("mlm_head"):
            raise ModelWithoutHead(f"{model.bundle.key} has no masked-language-model head")
        tokenization = _tokenization_options(model, model.mask_tokenizer, request.truncation)
        call_deadline = self._call_deadline(model, context)

        texts = await self._tokenization.tokenize(tokenization, TEXTS, request.texts)
        texts = [_with_mask(i, t, manifest.special_tokens.mask_id) for i, t in enumerate(texts)]
        records.current().num_invalid_texts = len(texts) - len(list(good(texts)))
        masks = [_masks(text, manifest.special_tokens.mask_id) for text in good(texts)]
        num_candidates = sum(len(positions) for positions in masks) * top_k
        self._limits.check_response("texts", num_candidates * TOKEN_BYTES)
        sources = [text.token_ids for text in good(texts)]
        call = FillMaskCall(sources, masks, top_k, call_deadline.deadline)
        results = await model.answer(call) if sources else []

        num_tokens = sum(len(source) for source in sources)
        return await self._tokenization.build(
            num_tokens + num_candidates,
            lambda: embedding_pb2.FillMaskResponse(
                results=_fill_results(model, texts, results, tokenization.truncation),
                model=model.bundle.key,
                token_counts=_counts(texts),
                timings=call_deadline.timings(),
            ),
        )

    def _checked_model(
        self,
        request: embedding_pb2.EmbedRequest
        | embedding_pb2.EmbedTokensRequest
        | embedding_pb2.FillMaskRequest,
    ) -> ServedModel:
        self._limits.check_count("texts", len(request.texts))
        self._limits.check_characters(TEXTS, request.texts)
        return self._catalog.serving(request.model, EMBEDDING)

    def _call_deadline(self, model: ServedModel, context: Context) -> CallDeadline:
        return CallDeadline(model.engine.clock, context, self._limits.max_request_seconds)


def _tokenization_options(
    model: ServedModel, tokenizer: TextTokenizer, truncation: Truncation
) -> TokenizationOptions:
    max_tokens = model.manifest.limits.max_tokens
    return TokenizationOptions(tokenizer, max_tokens, validation.truncation(truncation))


def _counts(texts: Sequence[TokenizedOrError]) -> text_pb2.TokenCounts:
    return text_pb2.TokenCounts(num_input_tokens=sum(len(text) for text in good(texts)))


def _tensor(array: NDArray[Any]) -> embedding_pb2.Tensor:
    return embedding_pb2.Tensor(
        data=array.astype("<f4", copy=False).tobytes(),
        shape=array.shape,
        dtype=embedding_pb2.DATA_TYPE_FLOAT32,
    )


def _normalize(vectors: NDArray[np.float32]) -> None:
    """Scale each row to length 1 in place; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (texts, 1)
    lengths[lengths == 0] = 1
    vectors /= lengths


def _embed_result(text: TokenizedOrError, truncation: Truncation) -> embedding_pb2.EmbedResult:
    if isinstance(text, InvalidRequest):
        return embedding_pb2.EmbedResult(error=fault(text))
    report = truncation_report(text, truncation)
    return embedding_pb2.EmbedResult(num_tokens=len(text), truncation=report)


def _token_results(
    texts: Sequence[TokenizedOrError],
    results: Sequence[dict[str, NDArray[np.float32]]],
    outputs: Sequence[str],
    truncation: Truncation,
) -> Iterator[embedding_pb2.EmbedTokensResult]:
    remaining = iter(results)
    for text in texts:
        if isinstance(text, InvalidRequest):
            yield embedding_pb2.EmbedTokensResult(error=fault(text))
            continue
        result = next(remaining)
        layers = [result[output] for output in outputs]  # each (length, d)
        yield embedding_pb2.EmbedTokensResult(
            tokens=[token_message(token) for token in text],
            embeddings=_tensor(layers[0] if len(layers) == 1 else np.stack(layers)),
            truncation=truncation_report(text, truncation),
        )


def _masks(text: TokenizedText, mask_id: int) -> list[int]:
    return [i for i, token_id in enumerate(text.token_ids) if token_id == mask_id]


def _with_mask(index: int, text: TokenizedOrError, mask_id: int) -> TokenizedOrError:
    if isinstance(text, InvalidRequest) or mask_id in text.token_ids:
        return text
    was_cut = len(text) < text.num_original_tokens
    return InvalidRequest(TEXTS.format(index), "has no mask left" if was_cut else "has no mask")


def _fill_results(
    model: ServedModel,
    texts: Sequence[TokenizedOrError],
    results: Sequence[MaskCandidates],
    truncation: Truncation,
) -> Iterator[embedding_pb2.FillMaskResult]:
    remaining = iter(results)
    mask_id = model.manifest.special_tokens.mask_id
    readable_token = cache(model.source_tokenizer.readable_token)  # masks share most candidates
    for text in texts:
        if isinstance(text, InvalidRequest):
            yield embedding_pb2.FillMaskResult(error=fault(text))
            continue
        masks = [token for token in text if token.id == mask_id]
        yield embedding_pb2.FillMaskResult(
            masks=_filled_masks(masks, next(remaining), readable_token),
            truncation=truncation_report(text, truncation),
        )


def _filled_masks(
    masks: Sequence[Token], candidates: MaskCandidates, readable_token: Callable[[int], str]
) -> Iterator[embedding_pb2.FilledMask]:
    for mask, ids, probabilities in zip(
        masks, candidates.token_ids.tolist(), candidates.probabilities.tolist(), strict=True
    ):
        yield embedding_pb2.FilledMask(
            start=mask.start,
            end=mask.end,
            candidates=[
                embedding_pb2.MaskCandidate(id=i, text=readable_token(i), probability=p)
                for i, p in zip(ids, probabilities, strict=True)
            ],
        )
