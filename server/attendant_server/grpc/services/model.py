"""ModelService: ListModels, GetModel and Tokenize."""

from attendant.v1 import bundle_pb2, model_pb2, model_pb2_grpc
from attendant_manifest.sizes import embedding_sizes, translation_sizes

from attendant_server.application import validation
from attendant_server.application.catalog import EMBEDDING, TRANSLATION, Catalog
from attendant_server.application.tokenization import TokenizationOptions, TokenizationRunner
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits
from attendant_server.bundles import Bundle
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.services.responses import Context, fault, good, token_message
from attendant_server.tokenizer import TokenizedText


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Describes the models and shows their tokens."""

    def __init__(
        self, catalog: Catalog, tokenization: TokenizationRunner, limits: RequestLimits
    ) -> None:
        self._catalog, self._tokenization, self._limits = catalog, tokenization, limits

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """All models, those that are still loading included."""
        return model_pb2.ListModelsResponse(models=map(self._info, self._catalog.bundles))

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        """Everything about one model."""
        bundle = self._catalog.find(request.model)
        manifest = bundle.manifest
        response = model_pb2.GetModelResponse(
            model=self._info(bundle),
            available_precisions=[precision.name for precision in manifest.precisions],
            limits=manifest.limits,
            request_limits=self._request_limits(manifest.kind),
            default_pooling=manifest.embedding.pooling,
            default_normalize=manifest.embedding.normalize,
            license=manifest.license,
            credits=manifest.credits,
            provenance=manifest.provenance,
            quality=manifest.quality,
            parity=manifest.parity,
        )
        if manifest.kind == TRANSLATION:
            response.translation_sizes.CopyFrom(translation_sizes(manifest.architecture))
        else:
            response.embedding_sizes.CopyFrom(embedding_sizes(manifest.architecture))
        return response

    async def Tokenize(
        self, request: model_pb2.TokenizeRequest, context: Context
    ) -> model_pb2.TokenizeResponse:
        """The tokens that the model would read."""
        self._limits.check_count("texts", len(request.texts))
        self._limits.check_characters(TEXTS, request.texts)
        side = validation.side(request.side)
        model = self._catalog.serving(request.model)
        if side == model_pb2.TEXT_SIDE_TARGET and model.manifest.kind == EMBEDDING:
            raise InvalidRequest("side", f"{model.bundle.key} has no target side")
        is_target = side == model_pb2.TEXT_SIDE_TARGET
        tokenizer = model.target_tokenizer if is_target else model.source_tokenizer

        max_total_tokens = self._limits.max_response_bytes // TOKEN_BYTES
        tokenization = TokenizationOptions(
            tokenizer, max_tokens=None, max_total_tokens=max_total_tokens
        )
        texts = await self._tokenization.tokenize(tokenization, TEXTS, request.texts)
        return await self._tokenization.build(
            sum(len(text) for text in good(texts)),
            lambda: model_pb2.TokenizeResponse(results=map(_result, texts), model=model.bundle.key),
        )

    def _info(self, bundle: Bundle) -> model_pb2.ModelInfo:
        manifest = bundle.manifest
        is_ready = self._catalog.is_ready(bundle)
        return model_pb2.ModelInfo(
            name=manifest.name,
            version=manifest.version,
            kind=manifest.kind,
            state=model_pb2.MODEL_STATE_READY if is_ready else model_pb2.MODEL_STATE_LOADING,
            is_default=self._catalog.is_default(bundle),
            source_language=", ".join(manifest.source_languages),
            target_language=", ".join(manifest.target_languages),
            languages=manifest.languages,
            precision=bundle.precision,
            description=manifest.description,
        )

    def _request_limits(self, kind: bundle_pb2.ModelKind.ValueType) -> model_pb2.RequestLimits:
        return model_pb2.RequestLimits(
            max_texts=self._limits.max_texts,
            max_text_characters=self._limits.max_text_characters,
            max_beam_size=self._limits.max_beam_size if kind == TRANSLATION else 0,
            max_top_k=self._limits.max_top_k if kind == EMBEDDING else 0,
        )


def _result(text: TokenizedText | InvalidRequest) -> model_pb2.TokenizeResult:
    if isinstance(text, InvalidRequest):
        return model_pb2.TokenizeResult(error=fault(text))
    return model_pb2.TokenizeResult(tokens=[token_message(token) for token in text])
