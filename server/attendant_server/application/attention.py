"""The attention weights of models, for study: between the tokens of a text and its translation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from attendant_server import records
from attendant_server.application.alignment import token_spans
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind, Splitting
from attendant_server.application.hypotheses import NO_TRANSLATION
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import tokenize
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    tokenization_options,
)
from attendant_server.application.translation_plans import (
    PlannedRequest,
    Planner,
    TranslationPlan,
)
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.attention_calls import AttendPairCall, AttendTextCall, Attention
from attendant_server.engine.calls import TranslateCall
from attendant_server.errors import InvalidRequest, ModelWithoutHead
from attendant_server.tokenized_text import Token, TokenizedText
from attendant_server.tokenizer import TextTokenizer

MAX_TOKENS = 128
"""Tokens of a text, and of its target. The number of weights grows with the square."""
WEIGHT_BYTES = 4


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """A text and, for a translation model, its target; None for the model's own translation.

    ``text_normalization`` is a number of `TextNormalization`, 0 for the default.
    """

    text: str
    target: str | None = None
    model: str = ""
    source_language: str = ""
    target_language: str = ""
    text_normalization: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionAnswer(Answer):
    """The weights with the tokens between which they are."""

    attention: Attention
    source_tokens: Sequence[Token]
    """Queries and keys of the encoder, and keys of cross-attention."""
    target: str = ""
    target_tokens: Sequence[Token] = ()
    """The tokens that the queries of the decoder and of cross-attention predict."""
    decoder_tokens: Sequence[Token] = ()
    """Keys of the decoder: the start token, and the target's tokens without the last one."""


@dataclass(frozen=True, slots=True)
class _Target:
    text: str
    tokens: Sequence[Token]

    @property
    def token_ids(self) -> list[int]:
        return [token.id for token in self.tokens]


class AttentionReader:
    """Reads the attention weights of all models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits
        self._planner = Planner(catalog, jobs, limits)

    async def read(self, request: AttentionRequest, seconds_left: float | None) -> AttentionAnswer:
        """The attention weights for one text.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        is_embedding = bool(request.model) and (
            self._catalog.find(request.model).kind is ModelKind.EMBEDDING
        )
        read = self._of_text if is_embedding else self._of_pair
        return await read(request, seconds_left)

    async def _of_text(
        self, request: AttentionRequest, seconds_left: float | None
    ) -> AttentionAnswer:
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        _check_text_only(request, model.description.key)
        open_graph = _graph_of(model)
        options = tokenization_options(
            model.source_tokenizer,
            min(MAX_TOKENS, model.description.max_tokens),
            self._limits.max_text_characters,
            truncation=0,
            text_normalization=request.text_normalization,
        )
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)
        text = await self._tokens(options, "text", request.text)
        await self._jobs.run(open_graph)
        (attention,) = await model.answer(AttendTextCall([text.token_ids], deadline))
        return self._answer(model, attention, text, None)

    async def _of_pair(
        self, request: AttentionRequest, seconds_left: float | None
    ) -> AttentionAnswer:
        plan = await self._planner.plan(
            PlannedRequest(
                model=request.model,
                source_language=request.source_language,
                target_language=request.target_language,
                splitting=Splitting.NONE,
                text_normalization=request.text_normalization,
            )
        )
        model = plan.model
        open_graph = _graph_of(model)
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)
        most = min(MAX_TOKENS, model.description.max_source_tokens)
        source = await self._tokens(
            replace(plan.tokenization, max_tokens=most), "text", request.text
        )
        if request.target is None:
            target, answer = await self._translated(plan, source, deadline), model.answer_further
        else:
            target, answer = await self._given(plan, request.target), model.answer
        await self._jobs.run(open_graph)
        call = AttendPairCall([(source.token_ids, target.token_ids)], deadline)
        (attention,) = await answer(call)
        return self._answer(model, attention, source, target)

    async def _tokens(self, options: TokenizationOptions, field: str, text: str) -> TokenizedText:
        (found,) = await tokenize(self._jobs, options, field, [text])
        if isinstance(found, InvalidRequest):
            raise found
        return found

    async def _given(self, plan: TranslationPlan, text: str) -> _Target:
        tokenizer = plan.model.target_tokenizer
        options = TokenizationOptions(
            tokenizer,
            min(MAX_TOKENS, plan.model.description.max_target_tokens),
            self._limits.max_text_characters,
            before=tokenizer.special_tokens(plan.options.forced_token_ids),
            normalizes=plan.tokenization.normalizes,
        )
        return _Target(text, list(await self._tokens(options, "target", text)))

    async def _translated(
        self, plan: TranslationPlan, source: TokenizedText, deadline: float
    ) -> _Target:
        """The model's translation of the whole text, with the tokens that it decoded."""
        call = TranslateCall([source.token_ids], plan.options, deadline)
        (hypotheses,) = await plan.model.answer(call)
        if not hypotheses:
            raise InvalidRequest("text", NO_TRANSLATION)
        token_ids = hypotheses[0].token_ids
        if len(token_ids) > MAX_TOKENS:
            raise InvalidRequest(
                "text", f"its translation has {len(token_ids)} tokens, at most {MAX_TOKENS}"
            )
        tokenizer = plan.model.target_tokenizer
        text = tokenizer.decode(token_ids)
        return _Target(text, _decoded_tokens(tokenizer, token_ids, text))

    def _answer(
        self,
        model: ServedModel,
        attention: Attention,
        source: TokenizedText,
        target: _Target | None,
    ) -> AttentionAnswer:
        size = sum(kind.weights.size for kind in attention.kinds)
        self._limits.check_response("text", WEIGHT_BYTES * size)
        target_tokens: Sequence[Token] = []
        decoder_tokens: Sequence[Token] = []
        if target is not None:
            target_tokens = target.tokens
            start_token_id = model.description.start_token_id
            assert start_token_id is not None, "a rule of manifests"
            start = model.target_tokenizer.special_tokens([start_token_id])
            decoder_tokens = [*start, *target_tokens[:-1]]
        return AttentionAnswer(
            model=model.description.key,
            attention=attention,
            source_tokens=list(source),
            target="" if target is None else target.text,
            target_tokens=target_tokens,
            decoder_tokens=decoder_tokens,
            num_input_tokens=len(source) + len(target_tokens),
            phases=records.current().phases(),
            size=size,
        )


def _graph_of(model: ServedModel) -> Callable[[], None]:
    """What opens the attention graph of a model; raises ModelWithoutHead if it has none."""
    if model.open_attention is None:
        raise ModelWithoutHead(f"model: {model.description.key} has no attention graph")
    return model.open_attention


def _check_text_only(request: AttentionRequest, key: str) -> None:
    """Raise InvalidRequest for a field that an embedding model does not have."""
    given = {
        "target": request.target is not None,
        "source_language": bool(request.source_language),
        "target_language": bool(request.target_language),
    }
    for field in (field for field, is_given in given.items() if is_given):
        raise InvalidRequest(field, f"is for translation models only, and {key} is none")


def _decoded_tokens(tokenizer: TextTokenizer, token_ids: Sequence[int], text: str) -> list[Token]:
    """The tokens of the decoded ``text``, with their places."""
    spans = token_spans(tokenizer.decode, token_ids, text)
    texts = tokenizer.tokens(token_ids)
    return [
        Token(token_id, name, *span, not tokenizer.is_plain(token_id))
        for token_id, name, span in zip(token_ids, texts, spans, strict=True)
    ]
