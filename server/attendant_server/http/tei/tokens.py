"""Tokens of texts, texts of tokens, and the description of the model."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from attendant_server import __version__
from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.models import TokenizationRequest
from attendant_server.application.offset_units import OffsetUnit
from attendant_server.errors import InvalidRequest
from attendant_server.field_names import renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.tei.messages import (
    NO_TOKENS,
    DecodeRequest,
    Info,
    Token,
    TokenizeRequest,
)
from attendant_server.http.texts import texts_of
from attendant_server.settings import Settings
from attendant_server.tei_requests import DTYPES, EMBEDDING, model_type, simple_tokens
from attendant_server.text_faults import without_faults


class TokensHandler:
    """Shows how embedding models read texts."""

    def __init__(self, application: Application, settings: Settings) -> None:
        self._models, self._jobs = application.models, application.jobs
        self._settings = settings

    async def tokenize(self, request: TokenizeRequest, call: Call) -> bytes:
        """The tokens of each text."""
        texts, names = texts_of(request.inputs, "inputs", NO_TOKENS)
        key = self._models.find(call.model, ModelKind.EMBEDDING).key
        with renamed_fields(names):
            answer = await self._models.tokenize(TokenizationRequest(texts, key))
            results = without_faults(answer.texts)
        unit, special = OffsetUnit.UTF8_BYTES, request.add_special_tokens

        def response() -> bytes:
            # One by one, since the event loop waits while the encoder runs.
            parts = [
                msgspec.json.encode(
                    [Token(*each) for each in simple_tokens(text, found, unit, special)]
                )
                for text, found in zip(texts, results, strict=True)
            ]
            return b"[" + b",".join(parts) + b"]"

        return await self._jobs.run_for(answer.size, response)

    async def decode(self, request: DecodeRequest, call: Call) -> list[str]:
        """The text of each list of tokens."""
        ids: Sequence[Any] = request.ids
        if all(isinstance(each, int) for each in ids):
            ids = [ids]
        elif any(isinstance(each, int) for each in ids):
            raise InvalidRequest("ids", "must be token ids, or lists of token ids")
        self._models.limits.check_count("ids", len(ids))
        skips = request.skip_special_tokens
        found = []
        for each in ids:
            found.append(await self._models.decode(call.model, each, skips))
            await asyncio.sleep(0)  # short lists are decoded at once; others run in between
        return found

    async def info(self, request: None, call: Call) -> Info:
        """The model that the call gets, and the limits."""
        model = self._models.find(call.model, ModelKind.EMBEDDING)
        settings = self._settings
        return Info(
            model_id=model.key,
            model_dtype=DTYPES.get(model.precision, model.precision),
            model_type=_model_type(model),
            max_concurrent_requests=settings.max_concurrent_calls,
            max_input_length=model.max_tokens,
            max_batch_tokens=settings.max_batch_tokens,
            max_client_batch_size=settings.max_texts,
            tokenization_workers=settings.num_tokenizer_threads,
            version=__version__,
        )


def _model_type(model: ModelDescription) -> dict[str, Any]:
    kind = model_type(model)
    if kind == EMBEDDING:
        return {kind: {"pooling": model.default_pooling.name.lower()}}
    labels = dict(enumerate(model.labels))
    return {kind: {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}}
