"""Descriptions of the models, and their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from attendant_server.application.catalog import Catalog
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import (
    TokenizedOrError,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    normalizes,
)
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits, known_value
from attendant_server.errors import InvalidRequest


class TextSide(IntEnum):
    """The tokenizers of a translation model; numbered as in the contract."""

    SOURCE = 1
    TARGET = 2


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model and its present state."""

    description: ModelDescription
    is_ready: bool
    is_default: bool
    """Whether this is the default version of its name."""
    is_default_of_kind: bool
    """Whether calls that name no model get it."""


@dataclass(frozen=True, slots=True)
class TokenizationRequest:
    """Texts to tokenize. ``side`` is a number of `TextSide`, 0 for the source.

    ``text_normalization`` is one of `TextNormalization`, 0 for the default.
    """

    texts: Sequence[str]
    model: str = ""
    side: int = 0
    text_normalization: int = 0


@dataclass(frozen=True, slots=True)
class TokenizationAnswer:
    """The tokens, or the fault, of each text, in the order of the request."""

    model: str
    texts: Sequence[TokenizedOrError]
    size: int
    """Number of tokens in all texts, for `JobRunner.run_for`."""


class ModelInspector:
    """Describes the models and tokenizes texts."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs = catalog, jobs
        self.limits = limits
        """The limits of requests to any model."""

    def list(self) -> Sequence[ListedModel]:
        """All models that the caller may use, loading models included."""
        return [self._listed(description) for description in self._catalog.permitted()]

    def find(self, model: str, kind: ModelKind | None = None) -> ModelDescription:
        """The description of one model; raises like `Catalog.find`."""
        return self._catalog.find(model, kind)

    def get(self, model: str) -> ListedModel:
        """One model; raises like `Catalog.find`."""
        return self._listed(self._catalog.find(model))

    async def tokenize(self, request: TokenizationRequest) -> TokenizationAnswer:
        """The tokens that the model would read."""
        self.limits.check_count("texts", len(request.texts))
        side = known_value("side", request.side, TextSide.SOURCE)
        model = self._catalog.serving(request.model)
        key, is_target = model.description.key, side is TextSide.TARGET
        if is_target and model.description.kind is not ModelKind.TRANSLATION:
            raise InvalidRequest("side", f"{key} has no target side")
        tokenizer = model.target_tokenizer if is_target else model.source_tokenizer
        options = TokenizationOptions(
            tokenizer,
            max_tokens=None,
            max_characters=self.limits.max_text_characters,
            normalizes=normalizes(tokenizer, request.text_normalization),
            max_total_tokens=self.limits.max_response_bytes // TOKEN_BYTES,
        )
        texts = await tokenize(self._jobs, options, TEXTS, request.texts)
        return TokenizationAnswer(key, texts, size=num_tokens(texts))

    async def decode(self, model: str, token_ids: Sequence[int], skips_special: bool) -> str:
        """The text of tokens of an embedding model; raises InvalidRequest."""
        served = self._catalog.serving(model, ModelKind.EMBEDDING)
        tokenizer, most = served.source_tokenizer, self.limits.max_text_characters
        if len(token_ids) > most:
            raise InvalidRequest("ids", f"at most {most}, got {len(token_ids)}")
        for place, token_id in enumerate(token_ids):
            if token_id >= tokenizer.vocab_size:
                raise InvalidRequest(f"ids[{place}]", "the vocabulary has no such token")
        return await self._jobs.run_for(
            len(token_ids), lambda: tokenizer.decode_all(token_ids, skips_special)
        )

    def _listed(self, description: ModelDescription) -> ListedModel:
        return ListedModel(
            description,
            is_ready=self._catalog.is_ready(description),
            is_default=self._catalog.is_default(description),
            is_default_of_kind=self._catalog.is_default_of_kind(description),
        )
